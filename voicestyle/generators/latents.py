"""Latents that any machine draws the same: each from its own seed."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

LATENT_DIM = 512


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
