"""The section of generated faces: makes the faces of a bundle, has them judged, and collects their figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from voicestyle.bundle import Bundle
from voicestyle.evaluation.agreement import SEXES
from voicestyle.evaluation.bank_faces import bank_faces
from voicestyle.evaluation.consistency import Recogniser
from voicestyle.evaluation.contact_sheet import SheetSpeaker, write_contact_sheet
from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.face_figures import bank_figures, condition_figures, face_figures
from voicestyle.evaluation.figure import write_figure
from voicestyle.evaluation.generate import Plan, Progress, RecordingFaces, best_size, generate_all, no_progress
from voicestyle.evaluation.intervals import Bootstrap, number_people
from voicestyle.evaluation.measured_faces import FaceMeasurement, Judge, MeasuredFaces
from voicestyle.evaluation.report import (
    CLEAN,
    FIRST,
    LAST,
    Conditions,
    FaceRow,
    Generation,
    Networks,
    Sampling,
    Sensitivity,
)
from voicestyle.evaluation.sensitivity import face_embedder, measure_sensitivity
from voicestyle.evaluation.speakers import Recording
from voicestyle.face import Face
from voicestyle.manifest import Manifest
from voicestyle.pipeline import Pipeline
from voicestyle.presets import DEFAULT, INSTANT

SHEET_SPEAKERS = 20
_FIGURE_PAIRS = 8


@dataclass(frozen=True)
class GenerationEvaluation:
    """Options of one evaluation.

    output: folder for the PNGs. recogniser: a face-recognition network that is in no loss. judge: estimates sex and age
    of PNG files; None leaves these figures out. judge_name: for the report. bank_faces: number of the bank's faces to
    compare with, at least 1. figure: JPEG to write with first and last faces of eight speakers. sheet: JPEG to write
    with all kinds of faces of the first `sheet_speakers` speakers. steps: of the last faces; None takes the bundle's
    default. seed: of every face and of the conditions. instant: also the faces of the bundle's mapper. conditions:
    names of recording conditions under which faces are also made, with the preset `condition_preset`. sensitivity:
    whether faces are changed to see how much similarity changes.
    """

    bundle: Path
    output: Path
    recogniser: Recogniser
    judge: Judge | None = None
    judge_name: str | None = None
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    bank_faces: int = 64
    figure: Path | None = None
    sheet: Path | None = None
    sheet_speakers: int = SHEET_SPEAKERS
    steps: int | None = None
    seed: int = 0
    instant: bool = False
    conditions: tuple[str, ...] = ()
    condition_preset: str = DEFAULT
    sensitivity: bool = False
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    capacity: int = 4

    def run(self, recordings: Sequence[Recording], progress: Progress = no_progress) -> Generation:
        """Generate, judge and measure the faces.

        Raises BundleError; InputError (bad_option) for steps beyond the bundle's limit; EvaluationError when the bundle
        has no mapper and instant faces are asked for, when no recording can be used, and when the judge fails.
        """
        bundle = Bundle.load(self.bundle, self.device, self.dtype)
        self._check_mapper(bundle.manifest)
        pipeline = Pipeline(bundle, device=self.device, capacity=self.capacity)
        plan = Plan(
            size=best_size(pipeline),
            steps=self.steps,
            seed=self.seed,
            instant=self.instant,
            conditions=self.conditions,
            condition_preset=self.condition_preset,
        )
        for options in (*plan.kinds().values(), plan.condition_options()):
            bundle.manifest.resolve(options)  # an error now, not once for each recording
        pipeline.warm_up()
        found, skipped = generate_all(pipeline, recordings, plan, progress)
        used = [(recording, faces) for recording, faces in zip(recordings, found, strict=True) if faces]
        if not used:
            raise EvaluationError(f"at least one recording must be usable, received: {skipped}")
        kept, faces = [recording for recording, _ in used], [faces for _, faces in used]
        if self.figure:
            write_figure(self.figure, _of_both_sexes(kept, faces))
        if self.sheet:
            write_contact_sheet(self.sheet, _sheet_speakers(kept, faces)[: self.sheet_speakers])
        bank = bank_faces(bundle, self.bank_faces, plan.size, self.device)
        measurement = FaceMeasurement(self.output, self.recogniser, self.judge, progress)
        measured, measured_bank = measurement.run(kept, _sets(plan, faces), bank)
        last = [each.kinds[LAST] for each in faces]
        halves = any(recording.part for recording in kept)
        return Generation(
            bundle=f"{bundle.manifest.name}@{bundle.manifest.version}",
            steps=last[0].settings.steps,
            face_seed=self.seed,
            networks=self._networks(bundle.manifest),
            sampling=Sampling(resamples=self.bootstrap.resamples, seed=self.bootstrap.seed),
            speakers=len({recording.speaker for recording in kept}),
            recordings=len(kept),
            skipped=skipped,
            faces={
                kind: face_figures(measured[kind], measured[FIRST], self.bootstrap, halves=halves)
                for kind in plan.kinds()
            },
            bank=bank_figures(measured_bank),
            distinct_prototype_sets=len({tuple(sorted(face.prototypes)) for face in last}),
            conditions=self._conditions(plan, measured, bundle.manifest) if plan.conditions else None,
            sensitivity=self._sensitivity(bundle, kept, faces, progress) if self.sensitivity else None,
            rows=_rows(plan, kept, faces, measured),
        )

    def _check_mapper(self, manifest: Manifest) -> None:
        wanted = self.instant or (self.conditions and self.condition_preset == INSTANT)
        if wanted and not manifest.mapper:
            raise EvaluationError(
                f"instant faces need a bundle with a mapper (mapper.pt), received {manifest.name}@{manifest.version}"
            )

    def _networks(self, manifest: Manifest) -> Networks:
        return Networks(
            loss=f"voice and face encoder of {manifest.name}@{manifest.version}",
            loss_sources=manifest.sources,
            generator=f"generator.pt, sha256 {manifest.files['generator.pt'][:12]}",
            recogniser=self.recogniser.name,
            sex_and_age=self.judge_name if self.judge else None,
            dtype=str(self.dtype).removeprefix("torch."),
        )

    def _conditions(self, plan: Plan, measured: Mapping[str, MeasuredFaces], manifest: Manifest) -> Conditions:
        clean = measured[plan.clean_kind or CLEAN]
        sets = {CLEAN: clean, **{name: measured[name] for name in plan.conditions if name in measured}}
        settings = manifest.resolve(plan.condition_options())
        figures = {name: condition_figures(each, clean, self.bootstrap) for name, each in sets.items()}
        return Conditions(preset=settings.preset, steps=settings.steps, figures=figures)

    def _sensitivity(
        self, bundle: Bundle, recordings: list[Recording], faces: list[RecordingFaces], progress: Progress
    ) -> Sensitivity:
        return measure_sensitivity(
            face_embedder(bundle, self.device),
            [each.kinds[LAST].image for each in faces],
            [each.voice for each in faces],
            [recording.speaker for recording in recordings],
            [recording.sex for recording in recordings],
            self.bootstrap,
            progress,
        )


def _sets(plan: Plan, faces: list[RecordingFaces]) -> dict[str, dict[int, Face]]:
    """The faces of each kind, and those that were made for each condition, by the number of their recording."""
    sets = {kind: {i: each.kinds[kind] for i, each in enumerate(faces)} for kind in plan.kinds()}
    for name in plan.condition_names:
        sets[name] = {i: each.conditions[name] for i, each in enumerate(faces) if name in each.conditions}
    return {name: each for name, each in sets.items() if each}


def _rows(
    plan: Plan,
    recordings: list[Recording],
    faces: list[RecordingFaces],
    measured: Mapping[str, MeasuredFaces],
) -> tuple[FaceRow, ...]:
    found = {name: each.rows() for name, each in measured.items()}
    names = [name for name in (CLEAN, *plan.conditions) if name in found]
    _, (speakers,) = number_people([recording.speaker for recording in recordings])
    return tuple(
        FaceRow(
            speaker=recording.speaker,
            number=int(speakers[i]) + 1,
            sex=recording.sex,
            recording=recording.name,
            prototypes=tuple(faces[i].kinds[LAST].prototypes),
            faces={kind: found[kind][i] for kind in plan.kinds()},
            conditions={name: found[name][i] for name in names if i in found[name]},
        )
        for i, recording in enumerate(recordings)
    )


def _sheet_speakers(recordings: list[Recording], faces: list[RecordingFaces]) -> list[SheetSpeaker]:
    of_speakers: dict[str, list[int]] = {}
    for i, recording in enumerate(recordings):
        of_speakers.setdefault(recording.speaker, []).append(i)
    return [
        SheetSpeaker(
            number=number,
            sex=recordings[rows[0]].sex,
            faces=[{kind: face.image for kind, face in faces[i].kinds.items()} for i in rows],
        )
        for number, rows in enumerate(of_speakers.values(), 1)
    ]


def _of_both_sexes(recordings: list[Recording], faces: list[RecordingFaces]) -> list[tuple[bytes, bytes]]:
    """First and last face of the first recording of the first four women and of the first four men."""
    chosen: list[tuple[bytes, bytes]] = []
    for sex in SEXES:
        of_speakers: dict[str, tuple[bytes, bytes]] = {}
        for recording, each in zip(recordings, faces, strict=True):
            if recording.sex == sex:
                of_speakers.setdefault(recording.speaker, (each.kinds[FIRST].image, each.kinds[LAST].image))
        chosen += list(of_speakers.values())[: _FIGURE_PAIRS // 2]
    return chosen
