"""Read a published prototype memory and find the training videos of the prototypes nearest to a voice."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from cmpc2.checkpoint import read_checkpoint
from cmpc2.errors import CheckpointError

CROP: Final = "1.6"  # folder of face crops in the published paths
NAME, VIDEO = COLUMNS = ("VGGFace1 ID", "video_id")


@dataclass(frozen=True)
class Memory:
    """One level of a prototype memory: centroids float [C, D], assignments int64 [N] in 0 … C − 1, and the paths
    `NAME/1.6/VIDEO` of the N assigned training videos."""

    centroids: Tensor
    assignments: Tensor
    videos: list[str]


def read_memory(memory_path: str | Path, df_path: str | Path, cluster: int = 1000) -> Memory:
    """Read the level with `cluster` prototypes from a published memory, and the videos from its CSV.

    Raises `CheckpointError` for files of another format, files that do not match each other, or a missing level;
    `OSError` for a path that cannot be opened.
    """
    centroids, assignments = _level(memory_path, cluster)
    videos = read_videos(df_path)
    if len(videos) != len(assignments):
        rule = f"{df_path} must have one row for each of the {len(assignments)} videos in {memory_path}"
        raise CheckpointError(f"{rule}; received {len(videos)} rows")
    return Memory(centroids, assignments, videos)


def getKNearestSamples(
    audio_feature: Tensor,
    memory_path: str | Path,
    df_path: str | Path,
    cluster: int = 1000,
    K: int = 3,
) -> list[str]:
    """Find the training videos of the `K` prototypes nearest to a voice: paths `NAME/1.6/VIDEO` in row order.

    `audio_feature` [D] or [1, D] is a voice embedding of any norm; distances are between L2-normalised vectors.
    `memory_path` contains `{"centroids": [[C, D], …], "inst2cluster": [[N], …], …}` with one entry per level, `df_path`
    is a CSV with one row for each of the N videos, and `cluster` selects the level by its number of prototypes C.

    Raises `ValueError` for an embedding, `cluster` or `K` that does not match the memory, its subclass
    `CheckpointError` for files of another format, `OSError` for a path that cannot be opened.
    """
    memory = read_memory(memory_path, df_path, cluster)
    centroids = memory.centroids
    dim = centroids.shape[1]
    if tuple(audio_feature.shape) not in ((dim,), (1, dim)):
        raise ValueError(f"audio_feature must be [{dim}] or [1, {dim}]; received {list(audio_feature.shape)}")
    if not 1 <= K <= len(centroids):
        raise ValueError(f"K must be in 1 … {len(centroids)}; received {K}")
    voice = audio_feature.detach().to("cpu", centroids.dtype).reshape(1, dim)
    distances = (F.normalize(voice) - F.normalize(centroids)).square().sum(dim=1)  # [C]
    nearest = distances.topk(K, largest=False).indices
    rows = torch.isin(memory.assignments, nearest).tolist()
    return [video for video, is_near in zip(memory.videos, cast(list[bool], rows), strict=True) if is_near]


def _level(path: str | Path, cluster: int) -> tuple[Tensor, Tensor]:
    memory = read_checkpoint(path)
    centroids = _tensors(path, memory, "centroids", axes=2)
    assignments = _tensors(path, memory, "inst2cluster", axes=1)
    sizes = [len(level) for level in centroids]
    if len(assignments) != len(sizes):
        received = f"received {len(assignments)} for {len(sizes)}"
        raise CheckpointError(f"{path} must have one inst2cluster per level of centroids; {received}")
    if cluster not in sizes:
        raise CheckpointError(f"cluster must be one of {sizes}, the levels of {path}; received {cluster}")
    level = sizes.index(cluster)
    chosen, members = centroids[level], assignments[level]
    if not chosen.is_floating_point() or not chosen.isfinite().all():
        raise CheckpointError(f"{path}: the {cluster} centroids must be finite floating-point numbers")
    if members.is_floating_point() or not ((members >= 0) & (members < cluster)).all():
        raise CheckpointError(f"{path}: inst2cluster of {cluster} prototypes must be integers in 0 … {cluster - 1}")
    return chosen, members.long()


def _tensors(path: str | Path, memory: dict[str, Any], key: str, axes: int) -> list[Tensor]:
    levels = memory.get(key)
    if isinstance(levels, list | tuple):
        tensors = [x for x in cast(list[Any], levels) if isinstance(x, Tensor) and x.dim() == axes]
        if len(tensors) == len(cast(list[Any], levels)):
            return tensors
    raise CheckpointError(f"{path}: {key} must be a list of tensors with {axes} axes, one per level")


def read_videos(path: str | Path) -> list[str]:
    """Read the paths `NAME/1.6/VIDEO` of a published CSV, one for each of its rows.

    Raises `CheckpointError` for a file of another format, `OSError` for a path that cannot be opened.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        try:
            rows = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                raise CheckpointError(f"{path} must have the columns {list(COLUMNS)}; missing {missing}")
            named = [(row[NAME], row[VIDEO]) for row in rows]
        except (UnicodeDecodeError, csv.Error) as error:
            raise CheckpointError(f"{path} must be a CSV in UTF-8: {error}") from error
    for number, (name, video) in enumerate(named, start=1):
        if not name or not video:
            raise CheckpointError(f"{path}: every row must have {' and '.join(COLUMNS)}; row {number} does not")
    return [f"{name}/{CROP}/{video}" for name, video in named]
