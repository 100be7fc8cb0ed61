"""Embeddings of recordings for the mapper's training, computed once by the bundle's own path from audio to voice.

A folder with a table speakers.csv (columns file and speaker; others are ignored) contains the recordings of the table.
In another folder, all audio files are found recursively: SPEAKER/…/*.flac, or files SPEAKER.wav of one speaker each.
Equal ids are one speaker, also in different folders.
"""

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmpc2 import decode
from cmpc2.audio import SAMPLE_RATE
from cmpc2.errors import AudioError
from voicestyle.bundle import Bundle
from voicestyle.errors import InputError
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline
from voicestyle.training.augment_voices import recording_variants
from voicestyle.training.errors import TrainingDataError
from voicestyle.whole_files import whole_file

TABLE = "speakers.csv"
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aiff", ".aif")
LONGEST_SECONDS = 60.0  # of a recording that are used
SAVE_EVERY = 32  # recordings

Progress = Callable[[range], Iterable[int]]
"""Wraps the range of remaining recordings, as `tqdm` does."""
Skip = Callable[[Path, str], None]
"""skip(file, reason), for a recording that cannot be used."""


@dataclass(frozen=True)
class Recording:
    """A file and the id of its speaker."""

    path: Path
    speaker: str


@dataclass(frozen=True)
class CropOptions:
    """crops: embeddings of a recording. The first is of the whole unchanged recording, the others are of crops with a
    length drawn between `shortest_seconds` and the whole, in turn of each variant of `recording_variants`.
    recordings: most recordings of a speaker, evenly chosen from those in the order of their paths."""

    crops: int = 8
    recordings: int = 4
    shortest_seconds: float = 2.0

    def __post_init__(self) -> None:
        if min(self.crops, self.recordings) < 1 or not self.shortest_seconds > 0:
            raise TrainingDataError(
                "crops and recordings must be at least 1 and shortest_seconds above 0, "
                f"received {self.crops}, {self.recordings} and {self.shortest_seconds}"
            )


def find_recordings(folders: Sequence[Path], most: int) -> list[Recording]:
    """At most `most` recordings of each speaker of all folders, ordered by speaker and path.

    Raises TrainingDataError for a folder without recordings, a table with other columns or empty fields, and a file
    that a table lists and the folder lacks.
    """
    by_speaker: dict[str, list[Recording]] = {}
    for folder in folders:
        found = _of_table(folder / TABLE) if (folder / TABLE).is_file() else _of_folder(folder)
        if not found:
            raise TrainingDataError(
                f"a folder of voices must contain {TABLE} or audio files ({', '.join(SUFFIXES)}); {folder} does not"
            )
        for recording in found:
            by_speaker.setdefault(recording.speaker, []).append(recording)
    chosen: list[Recording] = []
    for speaker in sorted(by_speaker):
        own = sorted(by_speaker[speaker], key=lambda recording: recording.path)
        count = min(most, len(own))
        chosen += [own[index * len(own) // count] for index in range(count)]
    return chosen


def embed_recordings(
    bundle: Bundle,
    recordings: Sequence[Recording],
    options: CropOptions,
    cache: Path,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = iter,
    skip: Skip = lambda path, reason: None,
) -> list[tuple[Tensor, str]]:
    """Embeddings [E] and speakers of all recordings, kept in `cache` (.npz), where an interrupted run continues.

    The cache belongs to the voice side of the bundle, the options and the content of the files; another one is
    replaced. A recording that cannot be decoded or has too little speech is skipped, and so is a crop.
    """
    key = _key(bundle, recordings, options)
    vectors, rows, done = _read(cache, key)
    pipeline = Pipeline(bundle, device=device, capacity=1)
    for index in progress(range(done, len(recordings))):
        embeddings = _embed(pipeline, recordings[index].path, options, skip)
        vectors += embeddings
        rows += [index] * len(embeddings)
        if (index + 1) % SAVE_EVERY == 0 or index + 1 == len(recordings):
            _write(cache, key, vectors, rows, index + 1)
    return [(torch.from_numpy(vector), recordings[row].speaker) for vector, row in zip(vectors, rows, strict=True)]


def _of_table(table: Path) -> list[Recording]:
    with table.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        if not {"file", "speaker"} <= set(reader.fieldnames or ()):
            raise TrainingDataError(f"{table} must have the columns file and speaker, received {reader.fieldnames}")
        rows = [(row["file"] or "", row["speaker"] or "") for row in reader]
    for file, speaker in rows:
        if not file or not speaker:
            raise TrainingDataError(f"{table} must have a file and a speaker in each row, received {(file, speaker)}")
        if not (table.parent / file).is_file():
            raise TrainingDataError(f"{table} lists {file}, which is missing in {table.parent}")
    return [Recording(table.parent / file, speaker) for file, speaker in rows]


def _of_folder(folder: Path) -> list[Recording]:
    files = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    places = [(path, path.relative_to(folder).parts) for path in files]
    return [Recording(path, parts[0] if len(parts) > 1 else path.stem) for path, parts in places]


def _embed(pipeline: Pipeline, path: Path, options: CropOptions, skip: Skip) -> list[NDArray[np.float32]]:
    seconds = min(LONGEST_SECONDS, pipeline.manifest.limits.audio_seconds)
    try:
        samples = decode(path)[: int(seconds * SAMPLE_RATE)]
    except AudioError as error:
        skip(path, error.message)
        return []
    found: list[NDArray[np.float32]] = []
    for crop in _crops(samples, options):
        try:
            found.append(pipeline.prepare(_as_wav(crop), Options()).voice.embedding.numpy())
        except InputError as error:
            if not found:  # the whole recording, which comes first, is unusable
                skip(path, error.message)
                return []
    return found


def _crops(samples: NDArray[np.int16], options: CropOptions) -> Iterable[NDArray[np.int16]]:
    """The whole recording [n], then random crops of its variants, determined by the samples alone."""
    yield samples
    seed = int.from_bytes(hashlib.sha256(samples.tobytes()).digest()[:8], "little")
    rng = np.random.Generator(np.random.Philox(seed))
    variants = recording_variants(samples, rng) if options.crops > 1 else []
    shortest = min(len(samples), int(options.shortest_seconds * SAMPLE_RATE))
    for index in range(1, options.crops):
        length = int(np.exp(rng.uniform(np.log(shortest), np.log(len(samples)))))
        start = int(rng.integers(0, len(samples) - length + 1))
        yield variants[index % len(variants)][start : start + length]


def _as_wav(samples: NDArray[np.int16]) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def _key(bundle: Bundle, recordings: Sequence[Recording], options: CropOptions) -> str:
    """A hash of what the embeddings depend on: the bundle's version and voice networks, options and recordings."""
    manifest = bundle.manifest
    networks = {name: manifest.files.get(name) for name in ("voice_encoder.pt", "front_end.pt")}
    content: list[Any] = [manifest.name, manifest.version, networks, asdict(options)]
    for recording in recordings:
        with recording.path.open("rb") as file:
            content.append([recording.speaker, hashlib.file_digest(file, "sha256").hexdigest()])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _read(cache: Path, key: str) -> tuple[list[NDArray[np.float32]], list[int], int]:
    """Vectors, the recording of each, and the number of finished recordings; nothing if the cache is another one's."""
    if cache.is_file():
        try:
            with np.load(cache, allow_pickle=False) as stored:
                if str(stored["key"]) == key:
                    return list(stored["vectors"]), stored["rows"].tolist(), int(stored["done"])
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError):
            pass  # not a cache: it is replaced
    return [], [], 0


def _write(cache: Path, key: str, vectors: list[NDArray[np.float32]], rows: list[int], done: int) -> None:
    stacked = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)
    with whole_file(cache) as draft, draft.open("wb") as file:
        np.savez(file, key=np.array(key), vectors=stacked, rows=np.array(rows, np.int64), done=np.array(done))
