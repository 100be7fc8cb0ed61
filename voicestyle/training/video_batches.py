"""Batches of videos: for each video one recording and one image, drawn by (seed, epoch, index) alone."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cmpc2 import AudioError, audio_preprocess, load_voice, visual_preprocess
from voicestyle.training.distributed import Ranks
from voicestyle.training.errors import TrainingDataError, TrainingError
from voicestyle.training.randomness import Draw, keyed_generator, random_below
from voicestyle.training.videos import Video

FaceView = Callable[[Tensor, int, torch.Generator], Tensor]
"""Augments images [N, 3, size, size] in [-1, 1], e.g. `augment_faces.FaceAugmentation`."""
VoiceView = Callable[[Tensor, int, torch.Generator], Tensor]
"""Makes a crop [1, 64, frames] of a log-mel [1, 64, T], e.g. `augment_voices.VoiceAugmentation`."""


@dataclass(frozen=True)
class DataOptions:
    """batch: videos per step, over all processes. image_size: pixels, 224 for CMPC or 256 for VoiceStyle.
    frames: length of a voice crop, 10 ms each. workers: processes that read files, per training process."""

    batch: int = 128
    image_size: int = 256
    frames: int = 800
    workers: int = 4

    def __post_init__(self) -> None:
        if self.batch < 2 or min(self.image_size, self.frames) < 1 or self.workers < 0:
            raise TrainingError(
                "batch must be at least 2, image_size and frames at least 1, workers at least 0, received "
                f"{self.batch}, {self.image_size}, {self.frames} and {self.workers}"
            )


@dataclass(frozen=True)
class VideoBatch:
    """This process's voices [n, 1, 64, frames] and faces [n, 3, size, size], and the rows, int64 [B], of the videos of
    the whole batch."""

    voices: Tensor
    faces: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Fault:
    """An unusable file. Workers return it, because an exception of a worker would reach the user as a traceback."""

    message: str


@dataclass(frozen=True)
class Samples(Dataset[tuple[Tensor, Tensor] | Fault]):
    """Indexed by (epoch, row): a voice crop [1, 64, frames] and an image [3, size, size] of the video `row`.

    A recording without speech is replaced by another one of the video.
    """

    videos: Sequence[Video]
    options: DataOptions
    seed: int = 0
    face_view: FaceView | None = None
    voice_view: VoiceView | None = None

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor] | Fault:
        epoch, row = key
        video, generator = self.videos[row], keyed_generator(Draw.ITEM, self.seed, epoch, row)
        try:
            return self._voice(video, generator), self._face(video, generator)
        except (TrainingDataError, OSError) as error:
            return Fault(str(error))

    def _voice(self, video: Video, generator: torch.Generator) -> Tensor:
        paths = video.voice_files()
        frames = self.options.frames
        for number in torch.randperm(len(paths), generator=generator).tolist():
            log_mel = read_voice(paths[number], frames)
            if log_mel is not None:
                if self.voice_view:
                    return self.voice_view(log_mel, frames, generator)
                start = random_below(log_mel.shape[2] - frames + 1, generator)
                return log_mel[:, :, start : start + frames]
        raise TrainingDataError(f"{video.voices} must contain a recording with speech; none of {len(paths)} has speech")

    def _face(self, video: Video, generator: torch.Generator) -> Tensor:
        paths = video.face_files()
        size = self.options.image_size
        image = read_face(paths[random_below(len(paths), generator)], size)
        return self.face_view(image[None], size, generator)[0] if self.face_view else image


def read_voice(path: Path, frames: int) -> Tensor | None:
    """The log-mel [1, 64, T ≥ frames] of a recording or of a published log-mel (.npy); None without speech.

    Raises TrainingDataError for a file that cannot be read.
    """
    try:
        if path.suffix == ".npy":
            return load_voice(frames)(path)
        return audio_preprocess(min_time=frames)(path)
    except AudioError as error:
        if error.code == "no_speech":
            return None
        raise TrainingDataError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise TrainingDataError(f"{path}: {error}") from error


def read_face(path: Path, size: int) -> Tensor:
    """An image [3, size, size] in [-1, 1]. Raises TrainingDataError for a file that cannot be read."""
    try:
        return visual_preprocess(size)(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise TrainingDataError(f"{path} must be an image: {error}") from error


class VideoBatches:
    """All videos once per epoch, in random order. The epoch's first videos fill up its last batch.

    Raises TrainingError if the processes cannot share a batch, or if it has more videos than there are.
    """

    def __init__(self, samples: Samples, ranks: Ranks | None = None) -> None:
        self.samples, self.ranks = samples, ranks or Ranks()
        self._batch = samples.options.batch
        self._part = self.ranks.part(self._batch)
        if self._batch > len(samples.videos):
            raise TrainingError(
                f"batch must be at most the number of videos {len(samples.videos)}, received {self._batch}"
            )
        self._order = _Order(self)
        workers = samples.options.workers
        self._loader: DataLoader[Any] = DataLoader(
            samples,
            batch_sampler=self._order,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_collated,
            pin_memory=self.ranks.device.type == "cuda",
        )

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches."""
        return -(-len(self.samples.videos) // self._batch)

    def description(self) -> dict[str, Any]:
        """What a resumed training must share: options except the number of workers, and the videos."""
        options = {name: value for name, value in asdict(self.samples.options).items() if name != "workers"}
        names = "\n".join(f"{video.name}/{video.video}" for video in self.samples.videos)
        views = [type(view).__name__ for view in (self.samples.face_view, self.samples.voice_view) if view]
        digest = hashlib.sha256(names.encode()).hexdigest()
        return options | {"seed": self.samples.seed, "videos_sha256": digest, "views": views}

    def batches(self, epoch: int) -> Iterator[VideoBatch]:
        """The batches of an epoch. Raises TrainingDataError for an unreadable file."""
        self._order.epoch = epoch
        device = self.ranks.device
        for rows, loaded in zip(self.rows(epoch), self._loader, strict=True):
            if isinstance(loaded, Fault):
                raise TrainingDataError(loaded.message)
            voices, faces = (each.to(device, non_blocking=True) for each in cast(tuple[Tensor, Tensor], loaded))
            yield VideoBatch(voices, faces, rows.to(device))

    def rows(self, epoch: int) -> list[Tensor]:
        """The videos of each batch of an epoch, int64 [B] each."""
        count = len(self.samples.videos)
        order = torch.randperm(count, generator=keyed_generator(Draw.ORDER, self.samples.seed, epoch))
        return list(torch.cat([order, order])[: self.steps_per_epoch * self._batch].split(self._batch))

    def own_keys(self, epoch: int) -> list[list[tuple[int, int]]]:
        """The keys of `samples` for this process's part of each batch."""
        return [[(epoch, row) for row in rows[self._part].tolist()] for rows in self.rows(epoch)]


class _Order:
    """The batch sampler of the current epoch. Persistent workers get the epoch with each key."""

    def __init__(self, source: VideoBatches) -> None:
        self.source, self.epoch = source, 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.source.own_keys(self.epoch))

    def __len__(self) -> int:
        return self.source.steps_per_epoch


def _collated(items: list[tuple[Tensor, Tensor] | Fault]) -> tuple[Tensor, Tensor] | Fault:
    loaded: list[tuple[Tensor, Tensor]] = []
    for item in items:
        if isinstance(item, Fault):
            return item
        loaded.append(item)
    voices, faces = zip(*loaded, strict=True)
    return torch.stack(voices), torch.stack(faces)
