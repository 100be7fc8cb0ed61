"""Adam (arXiv 1412.6980) for a batch whose items are at different steps and have different betas."""

import math

from torch import Tensor


def corrections(step: int, betas: tuple[float, float]) -> tuple[float, float]:
    """Bias corrections 1 − β₁^(i+1) and sqrt(1 − β₂^(i+1)) at step i, counted from 0."""
    count = step + 1
    return 1 - betas[0] ** count, math.sqrt(1 - betas[1] ** count)


def update_(
    variable: Tensor,
    gradient: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    *,
    step_size: Tensor,
    second_correction: Tensor,
    first_weight: Tensor,
    second_decay: Tensor,
    second_weight: Tensor,
    eps: Tensor,
) -> None:
    """Take one Adam step in place.

    variable, gradient and both moments are [N, ...], the rest [N]: step_size is the learning rate over the first
    bias correction, second_correction the square root of the second, first_weight 1 − β₁, second_decay β₂ and
    second_weight 1 − β₂.
    """
    rows = [-1] + [1] * (variable.dim() - 1)
    first_moment.lerp_(gradient, first_weight.view(rows))
    second_moment.mul_(second_decay.view(rows)).addcmul_(gradient * second_weight.view(rows), gradient)
    denominator = second_moment.sqrt().div_(second_correction.view(rows)).add_(eps.view(rows))
    variable.sub_(first_moment / denominator * step_size.view(rows))
