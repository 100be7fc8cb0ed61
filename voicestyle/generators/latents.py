"""Random latents z, each determined by its own seed and equal on all machines, and the mapping of z to w."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LATENT_DIM = 512
MAPPING_LAYERS = 8
SLOPE = 0.2  # of the leaky ReLUs of all generators
MEAN_SAMPLES = 10_000  # number of latents in latent_std, as published
FIRST_MEAN_SEED = 2**31  # larger than the seeds of latent banks
MAP_BATCH = 1000


class Mapper(Protocol):
    """A generator's mapping network."""

    def map(self, z: Tensor) -> Tensor:
        """Map z [N, 512], standard normal, to w [N, 512]."""
        ...


class MappingNetwork(nn.Module):
    """z to w: normalise z, then eight linear layers, whose weights include the gain √2 of the activations."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(LATENT_DIM, LATENT_DIM) for _ in range(MAPPING_LAYERS))
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, z: Tensor) -> Tensor:
        """z, w: [N, 512]."""
        x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for layer in self.layers:
            x = self.activation(layer(x))
        return x


def as_w_plus(w: Tensor, rows: int, dim: int) -> Tensor:
    """w [N, dim] with the same row for each layer, or w+ [N, rows, dim] as it is. Returns [N, rows, dim].

    Raises ValueError for another shape (in TorchScript: torch.jit.Error).
    """
    if w.dim() == 2 and w.shape[1] == dim:
        return w.unsqueeze(1).expand(-1, rows, -1)
    if w.dim() != 3 or w.shape[1] != rows or w.shape[2] != dim:
        raise ValueError(f"w must be [N, {dim}] or [N, {rows}, {dim}], got {w.shape}")
    return w


def face_z(seeds: Iterable[int]) -> Tensor:
    """Draw latents z [N, 512], float32, standard normal. Row i depends only on seed i.

    Raises ValueError for a seed outside 0 … 2³² − 1. numpy's Philox generator is specified exactly, and the normal
    variates are computed in float64 and rounded, so the result is the same on all machines.
    """
    rows = [np.random.Generator(np.random.Philox(_checked(seed))).standard_normal(LATENT_DIM) for seed in seeds]
    return torch.from_numpy(np.array(rows, dtype=np.float32).reshape(-1, LATENT_DIM))


def _checked(seed: int) -> int:
    if not 0 <= int(seed) < 2**32:
        raise ValueError(f"the seed of a face must be in 0 … 2³² − 1, got {seed}")
    return int(seed)


def map_seeds(generator: Mapper, seeds: NDArray[np.uint32]) -> Tensor:
    """Draw z for seeds [N] and map it to w [N, 512]."""
    with torch.inference_mode():
        parts = [
            generator.map(face_z(seeds[start : start + MAP_BATCH].tolist()))
            for start in range(0, len(seeds), MAP_BATCH)
        ]
    return torch.cat(parts)


def latent_statistics(generator: Mapper) -> tuple[Tensor, float]:
    """Mean [512] of 10,000 latents w, and sqrt(Σ(w − mean)² / 10,000), summed over all of them and all components.

    The second is the unit of the noise added to w.
    """
    w = map_seeds(generator, np.arange(FIRST_MEAN_SEED, FIRST_MEAN_SEED + MEAN_SAMPLES, dtype=np.uint32))
    mean = w.mean(dim=0)
    return mean, float((w - mean).square().sum().div(MEAN_SAMPLES).sqrt())


def latent_std(generator: Mapper) -> float:
    """The second value of `latent_statistics`."""
    return latent_statistics(generator)[1]
