"""A published memory and inverted latents, put together: the rows of a bundle's latent bank and its prototypes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmpc2.memory import Memory
from voicestyle.errors import BundleError
from voicestyle.published.latents import InvertedLatents


@dataclass(frozen=True)
class Bank:
    """What a bundle holds of a memory.

    Rows are the videos of the CSV that have a latent, in its order. `empty` prototypes have no video in the memory
    either: they stay, for the published lookup counts them among the nearest. `dropped` ones lost all of their videos
    for want of latents; counting them would only take images away, so they are left out and the others renumbered.
    """

    centroids: NDArray[np.float32]  # [K, E]
    latents: NDArray[np.float32]  # [N, D]
    assignments: NDArray[np.int32]  # [N]
    videos: tuple[str, ...]  # [N]
    empty: int
    dropped: int
    videos_without_latent: int
    latents_without_video: int


def make_bank(memory: Memory, inverted: InvertedLatents) -> Bank:
    """The bank of a level of a memory. Raises BundleError where no video of the memory has a latent."""
    rows = inverted.rows_of(memory.videos)
    held = rows >= 0
    if not held.any():
        example = memory.videos[0] if memory.videos else "none"
        raise BundleError(
            "latents must be of the memory's videos, got none of them: "
            f"the CSV has {example!r}, the latents have {inverted.videos[0]!r}"
        )
    members = memory.assignments.numpy()
    count = len(memory.centroids)
    in_memory = np.bincount(members, minlength=count) > 0
    in_bank = np.bincount(members[held], minlength=count) > 0
    kept = in_bank | ~in_memory
    renumbered = np.cumsum(kept) - 1
    return Bank(
        centroids=memory.centroids.float().numpy()[kept],
        latents=inverted.latents[rows[held]],
        assignments=renumbered[members[held]].astype(np.int32),
        videos=tuple(video for video, is_held in zip(memory.videos, held.tolist(), strict=True) if is_held),
        empty=int((~in_memory).sum()),
        dropped=int((~kept).sum()),
        videos_without_latent=int((~held).sum()),
        latents_without_video=len(set(inverted.videos) - set(memory.videos)),
    )
