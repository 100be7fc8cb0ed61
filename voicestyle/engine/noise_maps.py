"""The noise maps of a generator as optimisation variables: their first values, regulariser and normalisation.

Both of the latter reduce over the map of one item, never over the batch.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_MAP = 8  # the pyramid stops here


def draw(shapes: Iterable[Sequence[int]], source: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
    """First noise maps [1, R, R] of one item, standard normal, one for each of `shapes` [R, R].

    source: a generator of the CPU, so that the maps are the same for every device.
    """
    return [torch.randn(1, *shape, generator=source, dtype=dtype) for shape in shapes]


def regularisation(noise: Sequence[Tensor]) -> Tensor:
    """Autocorrelation of noise maps over a 2x pyramid (arXiv 1912.04958, appendix D, eq. 5).

    noise: maps [N, 1, R, R], one a layer, at least one. Returns [N].
    """
    total = noise[0].new_zeros(noise[0].shape[0])
    pending: dict[int, list[Tensor]] = {}
    for level in noise:
        pending.setdefault(level.shape[-1], []).append(level)
    while pending:
        size = max(pending)
        levels = torch.cat(pending.pop(size), dim=1)  # [N, K, size, size]: all maps and averages of one size
        for axis in (2, 3):
            total = total + (levels * levels.roll(1, dims=axis)).mean(dim=(2, 3)).square().sum(dim=1)
        if size > SMALLEST_MAP:
            pending.setdefault(size // 2, []).append(F.avg_pool2d(levels, 2))
    return total


def normalise_(noise: Tensor) -> None:
    """Set each map of noise [N, 1, R, R] to mean 0 and (unbiased) standard deviation 1, in place."""
    std, mean = torch.std_mean(noise, dim=(1, 2, 3), keepdim=True)
    noise.sub_(mean).div_(std)
