"""Latents that any machine draws the same: each from its own seed."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LATENT_DIM = 512
MEAN_SAMPLES = 10_000  # latents behind latent_std, as published
FIRST_MEAN_SEED = 2**31  # away from the seeds of latent banks
MAP_BATCH = 1000


class Mapper(Protocol):
    """A generator's mapping network."""

    def map(self, z: Tensor) -> Tensor:
        """z [N, 512], standard normal, to w [N, 512]."""
        ...


def face_z(seeds: Iterable[int]) -> Tensor:
    """The latents z [N, 512], float32, standard normal; row i depends on seed i alone.

    Seeds are in 0 … 2³² − 1; another raises ValueError. numpy's Philox generator is specified bit by bit, and the
    normal variates are made in float64 and rounded, so machines agree.
    """
    rows = [np.random.Generator(np.random.Philox(_checked(seed))).standard_normal(LATENT_DIM) for seed in seeds]
    return torch.from_numpy(np.array(rows, dtype=np.float32).reshape(-1, LATENT_DIM))


def _checked(seed: int) -> int:
    if not 0 <= int(seed) < 2**32:
        raise ValueError(f"a face's seed must be in 0 … 2³² − 1, got {seed}")
    return int(seed)


def map_seeds(generator: Mapper, seeds: NDArray[np.uint32]) -> Tensor:
    """The latents w [N, 512] of seeds [N]."""
    with torch.inference_mode():
        parts = [
            generator.map(face_z(seeds[start : start + MAP_BATCH].tolist()))
            for start in range(0, len(seeds), MAP_BATCH)
        ]
    return torch.cat(parts)


def latent_std(generator: Mapper) -> float:
    """sqrt(Σ(w − mean)² / 10,000) over 10,000 latents and all of their components: the unit of the noise on w."""
    w = map_seeds(generator, np.arange(FIRST_MEAN_SEED, FIRST_MEAN_SEED + MEAN_SAMPLES, dtype=np.uint32))
    return float((w - w.mean(dim=0)).square().sum().div(MEAN_SAMPLES).sqrt())
