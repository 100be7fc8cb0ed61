"""Read inverted latents: for each training video, the latent w of a face of its identity, found by GAN inversion.

Two formats are supported: a `.pt` file `{"latents": float [M, 512], "videos": [M paths]}`, or a `.npy` file of latents
with a `.txt` file of the same name that lists their videos, one per line. Latents w+ are [M, L, 512]. A video's path is
`NAME/1.6/VIDEO`, as returned by `cmpc2.getKNearestSamples`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.lib.format import read_array
from numpy.typing import NDArray
from torch import Tensor

from cmpc2.checkpoint import read_checkpoint
from voicestyle.errors import CheckpointError


@dataclass(frozen=True)
class InvertedLatents:
    """latents: float32 [M, 512] or [M, L, 512]; videos: M distinct paths."""

    latents: NDArray[np.float32]
    videos: tuple[str, ...]

    def rows_of(self, videos: Sequence[str]) -> NDArray[np.int64]:
        """Row of each of `videos`, int64 [N]; −1 for a video without latent."""
        rows = {video: row for row, video in enumerate(self.videos)}
        return np.array([rows.get(video, -1) for video in videos], dtype=np.int64)


def read_latents(path: Path) -> InvertedLatents:
    """Read inverted latents and their videos.

    Raises CheckpointError for a file of another format, latents that are not finite or of another shape, repeated
    videos, or different numbers of latents and videos; OSError for a path that cannot be opened.
    """
    if path.suffix == ".npy":
        latents, videos = _read_npy(path)
    elif path.suffix in (".pt", ".pth"):
        latents, videos = _read_pt(path)
    else:
        raise CheckpointError(f"{path}: latents must be a .pt or a .npy file, got {path.suffix or 'no extension'!r}")
    if latents.ndim not in (2, 3) or latents.dtype.kind != "f" or not len(latents):
        raise CheckpointError(
            f"{path}: latents must be floating-point numbers [M, D] or [M, L, D], "
            f"got {latents.dtype} {list(latents.shape)}"
        )
    if not np.isfinite(latents).all():
        raise CheckpointError(f"{path}: latents must be finite")
    if len(videos) != len(latents):
        raise CheckpointError(f"{path}: every latent must have a video, got {len(latents)} and {len(videos)}")
    [(video, count)] = Counter(videos).most_common(1)
    if count > 1:
        raise CheckpointError(f"{path}: a video must have one latent, got {count} for {video!r}")
    return InvertedLatents(latents.astype(np.float32), tuple(videos))


def _read_npy(path: Path) -> tuple[NDArray[Any], list[str]]:
    try:
        with path.open("rb") as file:
            latents = read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CheckpointError(f"{path} must be a .npy file of numbers: {str(error).splitlines()[0]}") from error
    names = path.with_suffix(".txt")
    try:
        videos = names.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{names} must be UTF-8: {error}") from error
    return latents, videos


def _read_pt(path: Path) -> tuple[NDArray[Any], list[str]]:
    content = read_checkpoint(path)
    latents, videos = content.get("latents"), content.get("videos")
    if not isinstance(latents, Tensor) or not isinstance(videos, list | tuple):
        keys = ", ".join(str(key) for key in list(content)[:8])
        raise CheckpointError(f'{path} must be {{"latents": tensor, "videos": list}}; its keys are {keys or "none"}')
    names = cast(Sequence[Any], videos)
    if odd := [type(name).__name__ for name in names if not isinstance(name, str)]:
        raise CheckpointError(f"{path}: videos must be strings, got {odd[0]}")
    if latents.dtype == torch.bfloat16:
        latents = latents.float()
    return latents.detach().numpy(), list(names)
