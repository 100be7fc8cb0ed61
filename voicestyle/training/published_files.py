"""Write the encoders and the prototype memory in the published forms, which `voicestyle bundle published` reads."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cmpc2 import CMPC
from voicestyle.training.checkpoint import write_atomically
from voicestyle.training.cmpc import CmpcOptions, prototype_level
from voicestyle.training.errors import TrainingDataError
from voicestyle.training.losses import unit
from voicestyle.training.video_batches import DataOptions, Fault, read_face
from voicestyle.training.videos import Video, VideoTable

Batches = Callable[[Iterable[Any]], Iterable[Any]]
"""Wraps the batches of videos, as `tqdm` does."""

ENCODERS = "cmpc.pth.tar"
MEMORY = "frame_memory.pth.tar"
TABLE = "training.csv"
_BATCH = 32


@dataclass(frozen=True)
class _Images(Dataset[Tensor | Fault]):
    """Up to `count` images [n, 3, size, size] of each video, evenly spaced in the order of their names."""

    videos: list[Video]
    size: int
    count: int

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, row: int) -> Tensor | Fault:
        try:
            paths = self.videos[row].face_files()
            count = min(self.count, len(paths))
            return torch.stack([read_face(paths[i * len(paths) // count], self.size) for i in range(count)])
        except (TrainingDataError, OSError) as error:
            return Fault(str(error))


@torch.inference_mode()
def embed_videos(
    model: CMPC, videos: list[Video], options: DataOptions, images: int, batches: Batches = iter
) -> Tensor:
    """Face embeddings of the videos, L2-normalised, float32 [N, E] on the CPU: means of up to `images` images each.

    The model must be in evaluation mode. Raises TrainingDataError for an unreadable image.
    """
    data = _Images(videos, options.image_size, images)
    loader: DataLoader[Any] = DataLoader(data, _BATCH, num_workers=options.workers, collate_fn=list)
    device = next(model.parameters()).device
    parts: list[Tensor] = []
    for loaded in batches(loader):
        for item in loaded:
            if isinstance(item, Fault):
                raise TrainingDataError(item.message)
        counts = [len(item) for item in loaded]
        embeddings = unit(model.encode_face(torch.cat(loaded).to(device)))
        parts.append(torch.stack([each.mean(0) for each in embeddings.split(counts)]).cpu().float())
    return unit(torch.cat(parts))


def write_published(
    folder: Path, model: CMPC, epoch: int, faces: Tensor, table: VideoTable, options: CmpcOptions, seed: int = 0
) -> None:
    """Write `cmpc.pth.tar`, `frame_memory.pth.tar` and `training.csv` to `folder`.

    faces: embeddings [N, E] of the table's videos. Their prototypes are those of the memory, at each of the levels.
    """
    levels = [prototype_level(faces, count, options, seed=seed + i) for i, count in enumerate(options.levels)]
    memory = {
        "centroids": [level["centroids"] for level in levels],
        "inst2cluster": [level["assignments"] for level in levels],
        "density": [level["temperature"] for level in levels],
        "epoch": epoch,
    }
    write_atomically(folder / ENCODERS, {"model": model.state_dict(), "epoch": epoch})
    write_atomically(folder / MEMORY, memory)
    table.write(folder / TABLE)
