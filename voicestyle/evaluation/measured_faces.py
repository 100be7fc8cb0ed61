"""Write sets of faces as files, and have the recogniser, the judge and the measure of light look at each once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voicestyle.evaluation.consistency import Recogniser, embed_faces
from voicestyle.evaluation.generate import Progress, no_progress
from voicestyle.evaluation.judge import Judgement
from voicestyle.evaluation.light import Light
from voicestyle.evaluation.report import RowFace
from voicestyle.evaluation.speakers import Recording
from voicestyle.face import Face

FACES = "faces"  # folder of the PNGs in that of the report
JUDGED_AT_ONCE = 100  # files on one command line

Judge = Callable[[Sequence[Path]], list[Judgement]]


@dataclass(frozen=True)
class MeasuredFaces:
    """Faces of recordings, one each, and what was measured of them.

    numbers: of the recordings. files: in the report's folder. vectors: unit vectors [M, E] by the recogniser. judged:
    None without a judge.
    """

    numbers: Sequence[int]
    recordings: Sequence[Recording]
    files: Sequence[str]
    similarity: NDArray[np.float64]
    lights: Sequence[Light]
    vectors: NDArray[np.float64]
    judged: Sequence[Judgement] | None

    @property
    def speakers(self) -> list[str]:
        """The speaker of each face."""
        return [recording.speaker for recording in self.recordings]

    @property
    def sexes(self) -> list[str]:
        """The sex of the speaker of each face."""
        return [recording.sex for recording in self.recordings]

    def rows(self) -> dict[int, RowFace]:
        """Each face for the report, by the number of its recording."""
        return {
            number: RowFace(
                file=self.files[i],
                similarity=float(self.similarity[i]),
                skin=self.lights[i].skin,
                brightness=self.lights[i].brightness,
                side_light=self.lights[i].side,
                judged=self.judged[i] if self.judged else None,
            )
            for i, number in enumerate(self.numbers)
        }


@dataclass(frozen=True)
class MeasuredBank:
    """Faces of the latent bank: unit vectors [M, E] by the recogniser; judged: None without a judge."""

    vectors: NDArray[np.float64]
    judged: Sequence[Judgement] | None


@dataclass(frozen=True)
class FaceMeasurement:
    """What looks at faces. output: folder of the report, which gets the files."""

    output: Path
    recogniser: Recogniser
    judge: Judge | None
    progress: Progress = no_progress

    def run(
        self, recordings: Sequence[Recording], sets: Mapping[str, Mapping[int, Face]], bank: Sequence[bytes]
    ) -> tuple[dict[str, MeasuredFaces], MeasuredBank]:
        """Measure sets of faces by name, each with faces by the number of their recording, and the bank's images.

        Raises JudgeError, OSError.
        """
        images = {
            (name, i): (f"{i:04}_{Path(recordings[i].speaker).name}_{name}.png", face.image)
            for name, faces in sets.items()
            for i, face in faces.items()
        }
        images |= {("bank", i): (f"bank_{i:04}.png", image) for i, image in enumerate(bank)}
        files = self._write(dict(images.values()))
        judged = dict(zip(images, self._judged(self.judge, files), strict=True)) if self.judge else None
        keys = list(images)
        vectors = {
            keys[i]: embed_faces(self.recogniser, [images[keys[i]][1]])[0]
            for i in self.progress(range(len(keys)), "measuring faces")
        }

        def of(name: str, numbers: Sequence[int]) -> tuple[NDArray[np.float64], list[Judgement] | None]:
            found = [judged[name, i] for i in numbers] if judged else None
            return np.array([vectors[name, i] for i in numbers]), found

        measured: dict[str, MeasuredFaces] = {}
        for name, faces in sets.items():
            numbers = list(faces)
            found, judgements = of(name, numbers)
            measured[name] = MeasuredFaces(
                numbers=numbers,
                recordings=[recordings[i] for i in numbers],
                files=[f"{FACES}/{images[name, i][0]}" for i in numbers],
                similarity=np.array([face.similarity for face in faces.values()]),
                lights=[Light.of(face.image) for face in faces.values()],
                vectors=found,
                judged=judgements,
            )
        return measured, MeasuredBank(*of("bank", range(len(bank))))

    def _write(self, images: Mapping[str, bytes]) -> list[Path]:
        folder = self.output / FACES
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in images.items():
            (folder / name).write_bytes(image)
        return [folder / name for name in images]

    def _judged(self, judge: Judge, files: Sequence[Path]) -> list[Judgement]:
        judged: list[Judgement] = []
        starts = range(0, len(files), JUDGED_AT_ONCE)
        for part in self.progress(range(len(starts)), f"judging faces, {JUDGED_AT_ONCE} at a time"):
            judged += judge(files[starts[part] : starts[part] + JUDGED_AT_ONCE])
        return judged
