"""Nearest prototypes in a published memory file, and the training videos that belong to them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cmpc2.checkpoint import read_checkpoint
from cmpc2.errors import CheckpointError

CROP = "1.6"  # the folder of VGGFace-style crops that the published frames lie in
COLUMNS = ("VGGFace1 ID", "video_id")


def getKNearestSamples(  # noqa: N802 - the published name
    audio_feature: Tensor,
    memory_path: str | Path,
    df_path: str | Path,
    cluster: int = 1000,
    K: int = 3,  # noqa: N803 - the published name
) -> list[str]:
    """Training videos of the `K` prototypes nearest to a voice, as `NAME/1.6/VIDEO` in row order.

    `audio_feature` [1, D] or [D], a voice embedding of any length; distances are between L2-normalised vectors.
    `memory_path` holds `{"centroids": [[C, D], …], "inst2cluster": [[N], …], …}` with one entry a level, `df_path`
    a CSV with a row for each of the N videos, and `cluster` chooses the level of C prototypes.

    Raises `ValueError` for an embedding, `cluster` or `K` that does not fit the memory, `CheckpointError` for a
    memory or CSV of another form.
    """
    centroids, assignments = _level(memory_path, cluster)
    voice = audio_feature.detach().cpu().reshape(1, -1) if audio_feature.dim() == 1 else audio_feature.detach().cpu()
    if voice.shape != (1, centroids.shape[1]):
        raise ValueError(
            f"audio_feature must be [1, {centroids.shape[1]}]; received {list(audio_feature.shape)}"
        )
    if not 1 <= K <= len(centroids):
        raise ValueError(f"K must lie in 1 … {len(centroids)}; received {K}")
    distances = (F.normalize(voice) - F.normalize(centroids)).square().sum(dim=1)  # [C]
    nearest = distances.topk(K, largest=False).indices
    videos = _videos(df_path)
    if len(videos) != len(assignments):
        raise CheckpointError(
            f"{df_path} must hold one row for each of the {len(assignments)} videos of {memory_path}; "
            f"received {len(videos)}"
        )
    rows = torch.isin(assignments, nearest).nonzero().flatten()
    return [videos[row] for row in rows.tolist()]


def _level(path: str | Path, cluster: int) -> tuple[Tensor, Tensor]:
    memory = read_checkpoint(path)
    centroids, assignments = (_tensors(path, memory, key) for key in ("centroids", "inst2cluster"))
    if len(centroids) != len(assignments):
        raise CheckpointError(
            f"{path} must hold one inst2cluster for each level of centroids; "
            f"received {len(assignments)} and {len(centroids)}"
        )
    sizes = [len(level) for level in centroids]
    if cluster not in sizes:
        raise ValueError(f"cluster must be one of {sizes}, the levels of {path}; received {cluster}")
    level = sizes.index(cluster)
    return centroids[level].cpu(), assignments[level].cpu()


def _tensors(path: str | Path, memory: Any, key: str) -> list[Tensor]:
    levels = memory.get(key)
    rank = 2 if key == "centroids" else 1
    if not isinstance(levels, (list, tuple)) or not all(isinstance(x, Tensor) and x.dim() == rank for x in levels):
        raise CheckpointError(f"{path}: {key} must be a list of tensors with {rank} axes")
    return list(levels)


def _videos(path: str | Path) -> list[str]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        absent = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if absent:
            raise CheckpointError(f"{path} must have the columns {', '.join(COLUMNS)}; missing {', '.join(absent)}")
        name, video = COLUMNS
        return [f"{row[name]}/{CROP}/{row[video]}" for row in rows]
