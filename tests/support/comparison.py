"""Numerical comparison with reference arrays."""

import numpy as np
import torch


def relative_error(value: torch.Tensor, expected: np.ndarray) -> float:
    """The largest distance of an item [N, ...] from the expected item, relative to the latter's norm."""
    target = torch.as_tensor(expected, dtype=torch.float64).flatten(1)
    return float(((value.detach().double().flatten(1) - target).norm(dim=1) / target.norm(dim=1)).max())
