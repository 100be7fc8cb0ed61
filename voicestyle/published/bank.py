"""Combine a published memory and inverted latents into a bundle's latent bank and prototypes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmpc2.memory import Memory
from voicestyle.errors import BundleError
from voicestyle.inverted_latents import InvertedLatents


@dataclass(frozen=True)
class Bank:
    """Latent bank and prototypes of one level of a memory.

    The N rows are the videos of the CSV that have a latent, in its order. `empty` prototypes have no video in the
    memory; they are kept, because the published lookup counts them among the nearest. `dropped` prototypes have videos,
    but none with a latent; they are removed and the others renumbered, so that they do not displace usable prototypes.
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
    """Combine a level of a memory with latents. Raises BundleError if no video of the memory has a latent."""
    rows = inverted.rows_of(memory.videos)
    held = rows >= 0
    if not held.any():
        example = memory.videos[0] if memory.videos else "none"
        raise BundleError(
            "the latents must include videos of the memory, got none of them: "
            f"the first video of the CSV is {example!r}, that of the latents {inverted.videos[0]!r}"
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
