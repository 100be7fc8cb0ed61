"""Adam (arXiv 1412.6980) for a batch whose items stand at different steps."""

import torch
from torch import Tensor


def corrections(step: Tensor, betas: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Bias corrections 1 − β₁^(i+1) and sqrt(1 − β₂^(i+1)) at step i, counted from 0: [N] -> two [N]."""
    count = (step + 1).to(torch.float64)
    first = 1 - torch.pow(torch.tensor(betas[0], dtype=torch.float64, device=step.device), count)
    second = 1 - torch.pow(torch.tensor(betas[1], dtype=torch.float64, device=step.device), count)
    return first, second.sqrt()


def update_(
    variable: Tensor,
    gradient: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    *,
    step_size: Tensor,
    second_correction: Tensor,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """One Adam step in place.

    variable, gradient and both moments are [N, ...]. step_size [N] is the learning rate over the first
    bias correction; second_correction [N] is the root of the second.
    """
    rows = [-1] + [1] * (variable.dim() - 1)
    first_moment.lerp_(gradient, 1 - betas[0])
    second_moment.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    denominator = second_moment.sqrt().div_(second_correction.view(rows)).add_(eps)
    variable.sub_(first_moment / denominator * step_size.view(rows))
