"""The training videos: a CSV with one row per video, and the folders of their recordings and images.

Layouts of VoxCeleb1 and VGGFace as published, with the columns of the published training.csv in capitals:

    voices   ID/VIDEO/*.wav (VoxCeleb1), or log-mels ID/VIDEO/*.npy, [T, 64]
    faces    NAME/1.6/VIDEO/*.jpg or NAME/VIDEO/*.jpg (frames of the videos), or photographs NAME/*.jpg (VGGFace)

where NAME is `VGGFace1 ID`, VIDEO is `video_id`, and ID is `VoxCeleb1 ID`, or NAME in a CSV without this column.
"""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmpc2.memory import COLUMNS, CROP
from voicestyle.training.errors import TrainingDataError

SPEAKER = "VoxCeleb1 ID"
LOG_MEL = (".npy",)
RECORDINGS = (".wav", ".flac", ".ogg", ".mp3", ".m4a")
IMAGES = (".jpg", ".jpeg", ".png", ".webp")
VOICE_FOLDERS = ("voices", "logmel", "wav")
FACE_FOLDERS = ("faces", "unzippedFaces", "photos", "VGG_ALL_FRONTAL")
_EXAMPLES = 3


@dataclass(frozen=True)
class Video:
    """name, video: VGGFace1 ID and video_id. voices, faces: folders of its recordings and images."""

    name: str
    video: str
    voices: Path
    faces: Path

    def voice_files(self) -> list[Path]:
        """Log-mels if there are any, else recordings; sorted."""
        return _files(self.voices, LOG_MEL) or _files(self.voices, RECORDINGS)

    def face_files(self) -> list[Path]:
        """Images, sorted. Raises TrainingDataError if there is none any more."""
        if files := _files(self.faces, IMAGES):
            return files
        raise TrainingDataError(f"{self.faces} must contain images; it has none")


@dataclass(frozen=True)
class VideoTable:
    """The rows of the CSV that are trained on, and their videos, in the same order."""

    columns: list[str]
    rows: list[dict[str, str]]
    videos: list[Video]
    skipped: int

    def write(self, path: Path) -> None:
        """Write the rows as a CSV of the same columns: the training.csv of the memory file."""
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.columns)
            table.writeheader()
            table.writerows(self.rows)


def find_folders(data: Path, voices: Path | None = None, faces: Path | None = None) -> tuple[Path, Path]:
    """The folders of voices and of faces: the given ones, or else those in `data`.

    Raises TrainingDataError if one is missing in `data`.
    """
    return voices or _find(data, "voices", VOICE_FOLDERS), faces or _find(data, "faces", FACE_FOLDERS)


def read_videos(table: Path, voices: Path, faces: Path, *, skip_missing: bool = False) -> VideoTable:
    """Read the CSV and find the folders of each video.

    Raises TrainingDataError for a CSV without the columns `VGGFace1 ID` and `video_id`, a repeated video, and videos
    without recordings or images, unless `skip_missing` leaves their rows out; OSError for a file that cannot be opened.
    """
    columns, rows = _read_rows(table)
    videos: list[Video] = []
    kept: list[dict[str, str]] = []
    missing: dict[str, list[str]] = {"recordings": [], "images": []}
    for row in rows:
        name, video = (row[column] for column in COLUMNS)
        voice_folder = voices / (row.get(SPEAKER) or name) / video
        face_folder = next((each for each in _face_folders(faces, name, video) if _has(each, IMAGES)), None)
        has_voice = _has(voice_folder, LOG_MEL + RECORDINGS)
        if not has_voice:
            missing["recordings"].append(str(voice_folder))
        if not face_folder:
            missing["images"].append(str(_face_folders(faces, name, video)[0]))
        if face_folder and has_voice:
            videos.append(Video(name, video, voice_folder, face_folder))
            kept.append(row)
    if any(missing.values()) and not (skip_missing and kept):
        listed = "; ".join(_listed(kind, len(rows), folders) for kind, folders in missing.items() if folders)
        raise TrainingDataError(f"every video of {table} must have recordings and images: {listed}")
    return VideoTable(columns, kept, videos, len(rows) - len(kept))


def _read_rows(table: Path) -> tuple[list[str], list[dict[str, str]]]:
    with table.open(newline="", encoding="utf-8") as file:
        try:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            if not set(COLUMNS) <= set(columns):
                raise TrainingDataError(f"{table} must have the columns {' and '.join(COLUMNS)}; it has {columns}")
            rows = list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise TrainingDataError(f"{table} must be a CSV in UTF-8: {error}") from error
    seen: set[tuple[str, ...]] = set()
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values() or not all(row[column] for column in COLUMNS):
            raise TrainingDataError(
                f"{table}: row {number} must have {len(columns)} values, with {' and '.join(COLUMNS)}"
            )
        key = tuple(row[column] for column in COLUMNS)
        if any(part in {".", ".."} or "/" in part for part in (*key, row.get(SPEAKER, ""))):
            raise TrainingDataError(f"{table}: names of row {number} must be names of folders, received {key}")
        if key in seen:
            raise TrainingDataError(f"{table} must list each video once; row {number} repeats {'/'.join(key)}")
        seen.add(key)
    if not rows:
        raise TrainingDataError(f"{table} must have one row per video; it has none")
    return columns, rows


def _find(data: Path, kind: str, names: tuple[str, ...]) -> Path:
    for name in names:
        if (data / name).is_dir():
            return data / name
    raise TrainingDataError(f"{data} must contain the {kind} in a folder named {' or '.join(names)}")


def _face_folders(faces: Path, name: str, video: str) -> Sequence[Path]:
    return faces / name / CROP / video, faces / name / video, faces / name


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.suffix.lower() in endings)


def _has(folder: Path, endings: tuple[str, ...]) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(Path(entry.name).suffix.lower() in endings for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _listed(kind: str, count: int, folders: list[str]) -> str:
    examples = ", ".join(folders[:_EXAMPLES])
    return f"{len(folders)} of {count} have no {kind}, e.g. {examples}"
