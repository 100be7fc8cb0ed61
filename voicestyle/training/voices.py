"""The speakers of a folder of recordings: those to train with, and those to hold out."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voicestyle.training.errors import TrainingDataError
from voicestyle.training.labels import SEXES

_HOLD_OUT_SEED = 2204_14057


@dataclass(frozen=True)
class Speaker:
    """One row of speakers.csv. file: name of the recording in the folder. speaker: id. sex: F or M."""

    file: str
    speaker: str
    sex: str


def read_speakers(folder: Path) -> list[Speaker]:
    """Read `folder`/speakers.csv (header: file,speaker,sex), ordered by speaker.

    Raises TrainingDataError for a missing file, other columns, a sex other than F or M, a repeated speaker, or a
    missing recording.
    """
    table = folder / "speakers.csv"
    if not table.is_file():
        raise TrainingDataError(
            f"the folder of voices must contain speakers.csv (file,speaker,sex) and its recordings; {folder} does not"
        )
    with table.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        if not {"file", "speaker", "sex"} <= set(reader.fieldnames or ()):
            raise TrainingDataError(f"{table} must have the columns file,speaker,sex; it has {reader.fieldnames}")
        speakers = [Speaker(row["file"] or "", row["speaker"] or "", row["sex"] or "") for row in reader]
    for speaker in speakers:
        if speaker.sex not in SEXES:
            raise TrainingDataError(f"{table}: sex must be F or M, got {speaker.sex!r} for {speaker.speaker}")
        if not (folder / speaker.file).is_file():
            raise TrainingDataError(f"{table} lists {speaker.file}, which is missing in {folder}")
    if len({speaker.speaker for speaker in speakers}) < len(speakers):
        raise TrainingDataError(f"{table} must list each speaker once")
    return sorted(speakers, key=lambda speaker: speaker.speaker)


def hold_out(speakers: list[Speaker], per_sex: int) -> tuple[list[Speaker], list[Speaker]]:
    """Split into (training, held out), each ordered by speaker, with `per_sex` held-out women and as many men.

    The choice depends only on the list. Raises TrainingDataError if fewer than two of a sex would remain.
    """
    rng = np.random.Generator(np.random.Philox(_HOLD_OUT_SEED))
    held: set[str] = set()
    for sex in SEXES:
        ids = [speaker.speaker for speaker in speakers if speaker.sex == sex]
        if len(ids) < per_sex + 2:
            raise TrainingDataError(
                f"at least {per_sex + 2} speakers of sex {sex} are needed ({per_sex} are held out), got {len(ids)}"
            )
        held.update(str(name) for name in rng.permutation(ids)[:per_sex])
    training = [speaker for speaker in speakers if speaker.speaker not in held]
    return training, [speaker for speaker in speakers if speaker.speaker in held]
