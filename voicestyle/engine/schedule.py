"""The published schedule of the latent optimisation, for a batch whose items stand at different steps.

Everything is a function of t = step / steps, elementwise, so each item of a batch has its own. The shape is
that of StyleGAN2's projection (arXiv 1912.04958, appendix D) with the numbers of VoiceStyle.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """Numbers of the optimisation; the defaults are the published ones."""

    base_lr: float = 0.01
    ramp_up: float = 0.05  # share of the steps over which the learning rate rises
    ramp_down: float = 0.25  # share of the steps over which it falls
    noise: float = 0.05  # strength of the noise added to w, in units of latent_std
    noise_ramp: float = 0.75  # share of the steps after which that noise is gone
    noise_regularisation: float = 1e5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        for name in ("ramp_up", "ramp_down", "noise_ramp"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ValueError(f"{name} is a share of the steps in (0, 1], got {value}")
        if self.base_lr <= 0:
            raise ValueError(f"base_lr must be positive, got {self.base_lr}")

    def learning_rate(self, t: Tensor) -> Tensor:
        """Learning rate at t = step / steps in [0, 1): float [N] -> [N]. It is 0 at t = 0."""
        falling = 0.5 - 0.5 * torch.cos(math.pi * ((1 - t) / self.ramp_down).clamp(max=1))
        return self.base_lr * falling * (t / self.ramp_up).clamp(max=1)

    def noise_strength(self, t: Tensor, latent_std: float) -> Tensor:
        """Standard deviation σ of the noise on w at t: float [N] -> [N]."""
        return latent_std * self.noise * (1 - t / self.noise_ramp).clamp(min=0).square()
