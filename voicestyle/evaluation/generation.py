"""The figures of a bundle's faces: similarity, sex, speaker consistency, diversity, drift in skin and light."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from voicestyle.bundle import Bundle
from voicestyle.evaluation.agreement import count_by_sex
from voicestyle.evaluation.bank_faces import bank_faces
from voicestyle.evaluation.consistency import (
    FacesOfSpeakers,
    Recogniser,
    between_speakers,
    embed_faces,
    mean_cosine,
    measure_consistency,
)
from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.figure import write_figure
from voicestyle.evaluation.generate import FacePair, Progress, best_size, generate_pairs
from voicestyle.evaluation.intervals import Bootstrap, number_people
from voicestyle.evaluation.judge import Judgement
from voicestyle.evaluation.light import Light
from voicestyle.evaluation.report import (
    Diversity,
    Drift,
    FaceRow,
    Generation,
    Networks,
    Sampling,
    Sex,
    SexTable,
    Similarity,
)
from voicestyle.evaluation.speakers import Recording
from voicestyle.pipeline import Pipeline

FACES = "faces"  # folder of the PNGs in that of the report
_FIGURE_PAIRS = 8

Judge = Callable[[Sequence[Path]], list[Judgement]]


@dataclass(frozen=True)
class GenerationEvaluation:
    """Options of one evaluation.

    output: folder for the PNGs. recogniser: a face-recognition network that is in no loss. judge: estimates sex and age
    of PNG files; None leaves these figures out. judge_name: for the report. bank_faces: number of the bank's faces to
    compare with, at least 1. figure: JPEG to write with first and last faces of eight speakers. steps: None takes the
    bundle's default. seed: of every face.
    """

    bundle: Path
    output: Path
    recogniser: Recogniser
    judge: Judge | None = None
    judge_name: str | None = None
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    bank_faces: int = 64
    figure: Path | None = None
    steps: int | None = None
    seed: int = 0
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    capacity: int = 4

    def run(self, recordings: Sequence[Recording], progress: Progress = iter) -> Generation:
        """Generate, judge and measure the faces.

        Raises BundleError; EvaluationError when no recording can be used and when the judge fails.
        """
        bundle = Bundle.load(self.bundle, self.device, self.dtype)
        pipeline = Pipeline(bundle, device=self.device, capacity=self.capacity)
        pipeline.warm_up()
        size = best_size(pipeline)
        found, skipped = generate_pairs(pipeline, recordings, progress, steps=self.steps, size=size, seed=self.seed)
        used = [(recording, pair) for recording, pair in zip(recordings, found, strict=True) if pair]
        if not used:
            raise EvaluationError(f"at least one recording must be usable, received: {skipped}")
        kept, pairs = [recording for recording, _ in used], [pair for _, pair in used]
        files = self._write_faces(kept, pairs)
        if self.figure:
            write_figure(self.figure, _of_both_sexes(kept, pairs))
        return self._section(bundle, size, kept, pairs, files, skipped)

    def _write_faces(self, recordings: list[Recording], pairs: list[FacePair]) -> list[tuple[str, str]]:
        folder = self.output / FACES
        folder.mkdir(parents=True, exist_ok=True)
        files: list[tuple[str, str]] = []
        for number, (recording, pair) in enumerate(zip(recordings, pairs, strict=True)):
            names = [f"{number:04}_{Path(recording.speaker).name}_{which}.png" for which in ("first", "last")]
            for name, face in zip(names, (pair.first, pair.last), strict=True):
                (folder / name).write_bytes(face.image)
            files.append((f"{FACES}/{names[0]}", f"{FACES}/{names[1]}"))
        return files

    def _section(
        self,
        bundle: Bundle,
        size: int,
        recordings: list[Recording],
        pairs: list[FacePair],
        files: list[tuple[str, str]],
        skipped: dict[str, str],
    ) -> Generation:
        manifest = bundle.manifest
        judged = self._judge(files)
        lights = [(Light.of(pair.first.image), Light.of(pair.last.image)) for pair in pairs]
        people, (persons,) = number_people([recording.speaker for recording in recordings])
        similarity = np.array([(pair.last.first_similarity, pair.last.similarity) for pair in pairs])
        first_faces, faces = (
            FacesOfSpeakers(
                embed_faces(self.recogniser, images),
                [recording.speaker for recording in recordings],
                [recording.sex for recording in recordings],
            )
            for images in ([pair.first.image for pair in pairs], [pair.last.image for pair in pairs])
        )
        halves = any(recording.part for recording in recordings)
        drifts = {
            name: self._drift(np.array([[getattr(each, name) for each in both] for both in lights]), people, persons)
            for name in ("skin", "brightness", "side")
        }
        return Generation(
            bundle=f"{manifest.name}@{manifest.version}",
            steps=pairs[0].last.settings.steps,
            face_seed=self.seed,
            networks=Networks(
                loss=f"voice and face encoder of {manifest.name}@{manifest.version}",
                generator=f"generator.pt, sha256 {manifest.files['generator.pt'][:12]}",
                recogniser=self.recogniser.name,
                sex_and_age=self.judge_name if judged else None,
                dtype=str(self.dtype).removeprefix("torch."),
            ),
            sampling=Sampling(resamples=self.bootstrap.resamples, seed=self.bootstrap.seed),
            speakers=people,
            recordings=len(recordings),
            skipped=skipped,
            similarity=Similarity(
                first=self.bootstrap.mean(people, similarity[:, 0], persons),
                last=self.bootstrap.mean(people, similarity[:, 1], persons),
            ),
            sex=self._sex(recordings, judged, people, persons) if judged else None,
            consistency=measure_consistency(faces, self.bootstrap, halves=halves),
            consistency_of_first_faces=measure_consistency(first_faces, self.bootstrap, halves=halves),
            diversity=self._diversity(bundle, size, faces, pairs),
            skin=drifts["skin"],
            brightness=drifts["brightness"],
            side_light=drifts["side"],
            rows=tuple(
                FaceRow(
                    speaker=recording.speaker,
                    sex=recording.sex,
                    recording=recording.name,
                    files=file,
                    similarity=(pair.last.first_similarity, pair.last.similarity),
                    skin=(first.skin, last.skin),
                    brightness=(first.brightness, last.brightness),
                    side_light=(first.side, last.side),
                    judged=judged[i] if judged else None,
                    prototypes=tuple(pair.last.prototypes),
                )
                for i, (recording, pair, file, (first, last)) in enumerate(
                    zip(recordings, pairs, files, lights, strict=True)
                )
            ),
        )

    def _diversity(self, bundle: Bundle, size: int, faces: FacesOfSpeakers, pairs: list[FacePair]) -> Diversity:
        images = bank_faces(bundle, self.bank_faces, size, self.device)
        paths = [self.output / FACES / f"bank_{number:04}.png" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            path.write_bytes(image)
        vectors = embed_faces(self.recogniser, images)
        sexes = [judged.sex for judged in self.judge(paths)] if self.judge else None
        return Diversity(
            between_speakers=between_speakers(faces, self.bootstrap),
            bank_faces=len(images),
            between_bank_faces=mean_cosine(vectors, [""] * len(images)),
            between_bank_faces_of_one_sex=mean_cosine(vectors, sexes) if sexes else None,
            distinct_prototype_sets=len({tuple(sorted(pair.last.prototypes)) for pair in pairs}),
        )

    def _judge(self, files: list[tuple[str, str]]) -> list[tuple[Judgement, Judgement]] | None:
        if not self.judge:
            return None
        judged = self.judge([self.output / name for both in files for name in both])
        return list(zip(judged[::2], judged[1::2], strict=True))

    def _sex(
        self,
        recordings: list[Recording],
        judged: list[tuple[Judgement, Judgement]],
        people: int,
        persons: NDArray[np.intp],
    ) -> Sex:
        sexes = [recording.sex for recording in recordings]
        tables: list[SexTable] = []
        for which in (0, 1):
            of_faces = [both[which].sex for both in judged]
            agrees = np.array([sex == judgement for sex, judgement in zip(sexes, of_faces, strict=True)], np.float64)
            share = self.bootstrap.share(people, agrees, persons)
            tables.append(SexTable(table=count_by_sex(sexes, of_faces), agreement=share))
        return Sex(first=tables[0], last=tables[1], youngest=min(last.age for _, last in judged))

    def _drift(self, lumas: NDArray[np.float64], people: int, persons: NDArray[np.intp]) -> Drift:
        """The figures of lumas [M, 2] of first and last faces."""
        change = lumas[:, 1] - lumas[:, 0]
        return Drift(
            mean=self.bootstrap.mean(people, change, persons),
            mean_absolute=self.bootstrap.mean(people, np.abs(change), persons),
            largest_absolute=float(np.abs(change).max()),
            spread_of_first_faces=float(lumas[:, 0].std()),
        )


def _of_both_sexes(recordings: list[Recording], pairs: list[FacePair]) -> list[FacePair]:
    """The first pair of the first four women and of the first four men."""
    chosen: list[FacePair] = []
    for sex in ("F", "M"):
        of_speakers: dict[str, FacePair] = {}
        for recording, pair in zip(recordings, pairs, strict=True):
            if recording.sex == sex:
                of_speakers.setdefault(recording.speaker, pair)
        chosen += list(of_speakers.values())[: _FIGURE_PAIRS // 2]
    return chosen
