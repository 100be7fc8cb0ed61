"""The recordings that faces are generated for: two of each speaker, or the halves of the only one."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from cmpc2 import decode
from cmpc2.audio import SAMPLE_RATE
from voicestyle.evaluation.agreement import SEXES
from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.tables import open_table

COLUMNS = ("file", "speaker", "sex")


@dataclass(frozen=True)
class Listed:
    """One row of a table of recordings: a file in the folder of recordings, the speaker's id, and F or M."""

    file: str
    speaker: str
    sex: str


@dataclass(frozen=True)
class Recording:
    """A recording, or a part of it.

    part: 0 for the whole file, 1 and 2 for its halves. file: its path in the table; None for the file name alone.
    """

    path: Path
    speaker: str
    sex: str
    part: int = 0
    file: str | None = None

    @property
    def name(self) -> str:
        """The file, with the half."""
        file = self.file or self.path.name
        return f"{file}, half {self.part}" if self.part else file

    def audio(self) -> bytes | Path:
        """What the pipeline prepares. Raises AudioError, OSError for a file that must be split and cannot be read."""
        if not self.part:
            return self.path
        samples = decode(self.path)
        middle = len(samples) // 2
        return to_wav(samples[:middle] if self.part == 1 else samples[middle:])


def to_wav(samples: NDArray[np.int16]) -> bytes:
    """Samples [n] at 16 kHz as a WAV file, which `cmpc2.decode` reads unchanged."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def read_speakers(table: Path) -> list[Listed]:
    """Read a CSV with the columns file, speaker and sex (F or M), in its order; a speaker may have several rows.

    Raises EvaluationError for other columns or values, for a speaker with two sexes, and for a table without rows.
    """
    if not table.is_file():
        raise EvaluationError(f"{table} must be a table file,speaker,sex of the recordings; it does not exist")
    rows: list[Listed] = []
    sexes: dict[str, str] = {}
    with open_table(table) as lines:
        reader = csv.DictReader(lines)
        if not set(COLUMNS) <= set(reader.fieldnames or ()):
            raise EvaluationError(f"{table} must have the columns {', '.join(COLUMNS)}, received {reader.fieldnames}")
        for row in reader:
            listed = Listed(*(row[column] or "" for column in COLUMNS))
            place = f"{table}, line {reader.line_num}"
            if listed.sex not in SEXES or not listed.file or not listed.speaker:
                raise EvaluationError(f"{place}: must have a file, a speaker and F or M, received {listed}")
            if sexes.setdefault(listed.speaker, listed.sex) != listed.sex:
                raise EvaluationError(f"{place}: a speaker must have one sex, received both for {listed.speaker}")
            rows.append(listed)
    if not rows:
        raise EvaluationError(f"{table} must have at least one row, received none")
    return rows


def held_out_speakers(assets: Path) -> list[Listed]:
    """The speakers that were held out of the training of the demo encoders, from `assets`/encoders.json."""
    card = json.loads((assets / "encoders.json").read_text(encoding="utf-8"))
    return [Listed(**row) for row in card["held_out"]]


def choose_recordings(
    listed: Sequence[Listed], folder: Path, *, halves: bool = True, per_sex: int | None = None
) -> list[Recording]:
    """The recordings of each speaker: the first two rows, or else both halves of the only file, or the whole file.

    Speakers come in the order of their first rows. halves: whether an only recording is split. per_sex: the first
    speakers of each sex that are used; None uses all.

    Raises EvaluationError for a file that `folder` lacks.
    """
    files: dict[str, list[Listed]] = {}
    for row in listed:
        files.setdefault(row.speaker, []).append(row)
    chosen: list[Recording] = []
    used = dict.fromkeys(SEXES, 0)
    for rows in files.values():
        sex = rows[0].sex
        used[sex] += 1
        if per_sex is not None and used[sex] > per_sex:
            continue
        parts = (1, 2) if halves and len(rows) == 1 else (0,)
        chosen += [
            Recording(folder / row.file, row.speaker, row.sex, part, row.file) for row in rows[:2] for part in parts
        ]
    if missing := [recording.file for recording in chosen if not recording.path.is_file()]:
        raise EvaluationError(f"{folder} must contain the recording {missing[0]}, and does not")
    return chosen
