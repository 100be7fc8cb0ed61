"""The latent prior in a step: its part of the gradient of w, and the directions of w that are held.

The gradient of weight · ‖whitening · (w − centre)‖² / R is 2 · weight / R · whiteningᵀ · whitening · (w − centre); for
w+, the distance is the mean over rows. Each item has its own weight, centre and first latent.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from voicestyle.engine.rows import Rows
from voicestyle.latent_prior import LatentPrior


class PriorTerms:
    """A prior on the device of `rows`, with the centre and the first latent of each item.

    latent_shape: [D] or [L, D] for w+. Raises ValueError for a prior on latents of another D.
    """

    def __init__(self, prior: LatentPrior, rows: Rows, latent_shape: Sequence[int], dtype: torch.dtype) -> None:
        if prior.dim != latent_shape[-1]:
            raise ValueError(f"the latent prior must be for latents of {latent_shape[-1]} numbers, got {prior.dim}")
        self._whitening = torch.tensor(prior.whitening, dtype=dtype, device=rows.device)
        self._held = torch.tensor(prior.held, dtype=dtype, device=rows.device)
        self._scale = 2 / len(prior.whitening) / (latent_shape[0] if len(latent_shape) > 1 else 1)
        self._centre = rows.allocate(*latent_shape, dtype=dtype)
        self._first = rows.allocate(*latent_shape, dtype=dtype)

    @property
    def held(self) -> int:
        """How many directions it can hold."""
        return len(self._held)

    def add(self, row: int, first_latent: Tensor, centre: Tensor) -> None:
        """Store the first latent of a new item, [D] or [L, D], and its centre, of that shape or [D] for all rows."""
        self._first[row] = first_latent.to(self._first)
        self._centre[row] = centre.to(self._centre)

    def add_gradient(self, gradient: Tensor, rows: slice, latent: Tensor, weight: Tensor) -> Tensor:
        """The gradient [N, ...] of the loss plus that of weight · distance; unchanged for items of weight 0.

        latent: w [N, D] or w+ [N, L, D] of these rows. weight: [N].
        """
        whitened = (latent - self._centre[rows]) @ self._whitening.T
        weight = _per_item(weight, latent)
        return torch.where(weight > 0, gradient + self._scale * weight * (whitened @ self._whitening), gradient)

    def restore_held_(self, rows: slice, latent: Tensor, hold: Tensor) -> None:
        """Give w [N, D], or each row of w+ [N, L, D], the components of the first latent along the held directions.

        In place. hold: [N], items with 0 stay as they are.
        """
        if not self.held:
            return
        # From the difference, which is small, so that the components have no rounding errors of the size of w.
        moved = (latent - self._first[rows]) @ self._held.T @ self._held
        latent.copy_(torch.where(_per_item(hold, latent) > 0, latent - moved, latent))


def _per_item(numbers: Tensor, like: Tensor) -> Tensor:
    """Numbers [N] with as many axes as `like` [N, ...]."""
    return numbers.view([-1] + [1] * (like.dim() - 1))
