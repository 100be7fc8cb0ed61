"""The faces of many recordings: first, instant and last ones, and those of the recordings under conditions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol
from zlib import crc32

import numpy as np
from torch import Tensor

from cmpc2 import AudioError, decode
from voicestyle.errors import InputError
from voicestyle.evaluation.report import CLEAN, FIRST, LAST
from voicestyle.evaluation.speakers import Recording, to_wav
from voicestyle.face import Face
from voicestyle.offline import generate_faces
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline, Prepared
from voicestyle.presets import DEFAULT, INSTANT
from voicestyle.voice_conditions import CONDITIONS

_UNUSABLE = (AudioError, InputError, OSError)


class Progress(Protocol):
    """Wraps the numbers of a task's parts, which it yields, as tqdm does; task: its name."""

    def __call__(self, numbers: range, task: str) -> Iterable[int]:
        """The numbers, one after the other."""
        ...


def no_progress(numbers: range, task: str) -> Iterable[int]:
    """The numbers themselves."""
    del task
    return numbers


@dataclass(frozen=True)
class Plan:
    """Which faces are made of each recording.

    The face of the first latent, before any optimisation (first), that of the bundle's mapper (instant) and the face
    after the last step (last). steps: of the last faces; None takes the bundle's default. seed: of every face and of
    the conditions. conditions: names of `voicestyle.voice_conditions`. condition_preset: of the faces under conditions;
    those of the default preset also take `steps`.
    """

    size: int
    steps: int | None = None
    seed: int = 0
    instant: bool = False
    conditions: tuple[str, ...] = ()
    condition_preset: str = DEFAULT

    def kinds(self) -> dict[str, Options]:
        """The options of each kind of faces.

        The learning rate of the first step is 0, so the result of a one-step request is the first face.
        """
        instant = {INSTANT: self._options(INSTANT)} if self.instant else {}
        return {FIRST: Options(steps=1, seed=self.seed, size=self.size), **instant, LAST: self._options(DEFAULT)}

    @property
    def clean_kind(self) -> str | None:
        """The kind of faces that those under conditions compare with; None if CLEAN is made for that."""
        kind = {DEFAULT: LAST, INSTANT: INSTANT}.get(self.condition_preset)
        return kind if kind in self.kinds() else None

    @property
    def condition_names(self) -> tuple[str, ...]:
        """The conditions for which faces are made, with CLEAN first where no kind of faces can stand for it."""
        clean = (CLEAN,) if self.conditions and self.clean_kind is None else ()
        return (*clean, *self.conditions)

    def condition_options(self) -> Options:
        """The options of faces under conditions."""
        return self._options(self.condition_preset)

    def _options(self, preset: str) -> Options:
        steps = {DEFAULT: self.steps, INSTANT: 0}.get(preset)
        return Options(steps=steps, preset=preset, seed=self.seed, size=self.size)


@dataclass(frozen=True)
class RecordingFaces:
    """The faces of one recording by kind, and those made for conditions. voice: its embedding [E], float32."""

    voice: Tensor
    kinds: Mapping[str, Face]
    conditions: Mapping[str, Face] = field(default_factory=dict)


def generate_all(
    pipeline: Pipeline, recordings: Sequence[Recording], plan: Plan, progress: Progress = no_progress
) -> tuple[list[RecordingFaces | None], dict[str, str]]:
    """The faces of each recording, in order, and the reasons of those that cannot be used, by name.

    The faces of an unusable recording are None. One that cannot be used under a condition lacks that condition.
    """
    kinds = plan.kinds()
    skipped: dict[str, str] = {}
    voices: dict[int, Tensor] = {}
    first: dict[int, float] = {}

    def skip(recording: Recording, name: str, error: Exception) -> None:
        skipped[name] = str(error).replace(str(recording.path), recording.path.name)

    def prepare() -> Iterator[tuple[str, Prepared]]:
        for i, recording in enumerate(recordings):
            try:
                audio = recording.audio()
                prepared = pipeline.prepare(audio, kinds[LAST])
            except _UNUSABLE as error:
                skip(recording, recording.name, error)
                continue
            voices[i], first[i] = prepared.voice.embedding, pipeline.first_similarity(prepared)
            for kind, options in kinds.items():
                yield f"{i} {kind}", replace(prepared, settings=pipeline.manifest.resolve(options))
            for name, under in _under_conditions(pipeline, plan, recording, audio, prepared):
                if isinstance(under, InputError):
                    skip(recording, f"{recording.name}, {name}", under)
                else:
                    yield f"{i} under {name}", under

    names = plan.condition_names
    made: dict[str, Face] = {}
    finished = iter(progress(range((len(kinds) + len(names)) * len(recordings)), "generating faces"))
    for key, face in generate_faces(pipeline, prepare()):
        made[key] = face
        next(finished, None)
    for _ in finished:  # faces of unusable recordings
        pass
    found: list[RecordingFaces | None] = [
        RecordingFaces(
            voice=voices[i],
            # The similarity of a first step is that of a face with noise.
            kinds={kind: made[f"{i} {kind}"] for kind in kinds}
            | {FIRST: replace(made[f"{i} {FIRST}"], trace=[first[i]])},
            conditions={name: made[key] for name in names if (key := f"{i} under {name}") in made},
        )
        if i in voices
        else None
        for i in range(len(recordings))
    ]
    return found, skipped


def _under_conditions(
    pipeline: Pipeline, plan: Plan, recording: Recording, audio: bytes | Path, prepared: Prepared
) -> Iterator[tuple[str, Prepared | InputError]]:
    """The prepared request of each condition, or why the recording cannot be used under it."""
    if plan.conditions and plan.clean_kind is None:
        yield CLEAN, replace(prepared, settings=pipeline.manifest.resolve(plan.condition_options()))
    for name in plan.conditions:
        # Each recording and condition has its own random numbers, whatever else is evaluated.
        source = np.random.default_rng([plan.seed, crc32(f"{name} {recording.name}".encode())])
        changed = to_wav(CONDITIONS[name](decode(audio), source))
        try:
            yield name, pipeline.prepare(changed, plan.condition_options())
        except InputError as error:
            yield name, error


def best_size(pipeline: Pipeline, wanted: int = 256) -> int:
    """The smallest image size of the bundle that is at least `wanted`, or its largest one."""
    sizes = pipeline.manifest.sizes
    return min((size for size in sizes if size >= wanted), default=max(sizes))
