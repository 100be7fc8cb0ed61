"""First and last faces of many recordings."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from cmpc2 import AudioError
from voicestyle.errors import InputError
from voicestyle.evaluation.speakers import Recording
from voicestyle.face import Face
from voicestyle.offline import generate_faces
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline, Prepared

Progress = Callable[[range], Iterable[int]]


@dataclass(frozen=True)
class FacePair:
    """The face of the first latent, before any optimisation, and the face after the last step."""

    first: Face
    last: Face


def generate_pairs(
    pipeline: Pipeline,
    recordings: Sequence[Recording],
    progress: Progress,
    *,
    steps: int | None = None,
    size: int = 256,
    seed: int = 0,
) -> tuple[list[FacePair | None], dict[str, str]]:
    """The pair of faces of each recording, in order, and the reasons of those that cannot be used, by name.

    steps: None takes the bundle's default. progress: wraps the range of faces to make, as tqdm does. The pair of an
    unusable recording is None. The learning rate of the first step is 0, so the result of a one-step request is the
    first face.
    """
    options = {
        "first": Options(steps=1, seed=seed, size=size),
        "last": Options(steps=steps, seed=seed, size=size),
    }
    skipped: dict[str, str] = {}

    def prepare() -> Iterator[tuple[str, Prepared]]:
        for i, recording in enumerate(recordings):
            try:
                audio = recording.audio()
                prepared = [(f"{name} {i}", pipeline.prepare(audio, options[name])) for name in options]
            except (AudioError, InputError, OSError) as error:
                skipped[recording.name] = str(error).replace(str(recording.path), recording.path.name)
            else:
                yield from prepared

    faces: dict[str, Face] = {}
    finished = iter(progress(range(2 * len(recordings))))
    for key, face in generate_faces(pipeline, prepare()):
        faces[key] = face
        next(finished, None)
    for _ in finished:  # faces of unusable recordings
        pass
    pairs = [
        FacePair(faces[f"first {i}"], faces[f"last {i}"]) if f"last {i}" in faces else None
        for i in range(len(recordings))
    ]
    return pairs, skipped


def best_size(pipeline: Pipeline, wanted: int = 256) -> int:
    """The smallest image size of the bundle that is at least `wanted`, or its largest one."""
    sizes = pipeline.manifest.sizes
    return min((size for size in sizes if size >= wanted), default=max(sizes))
