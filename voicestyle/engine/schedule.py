"""The published schedule of the latent optimisation, as plain numbers.

Every number is a function of t = step / steps, so each item of a batch has its own. The shape is that of StyleGAN2's
projection (arXiv 1912.04958, appendix D), the constants are VoiceStyle's.
"""

import math
from dataclasses import dataclass

from voicestyle.presets import Preset


@dataclass(frozen=True)
class Schedule:
    """The constants of one item's optimisation; the defaults are the published ones."""

    base_lr: float = 0.01
    ramp_up: float = 0.05  # share of the steps over which the learning rate rises
    ramp_down: float = 0.25  # share of the steps over which it falls
    noise: float = 0.05  # strength of the noise added to w, in units of latent_std
    noise_ramp: float = 0.75  # share of the steps during which that noise falls to 0
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
        if self.noise < 0:
            raise ValueError(f"noise must be at least 0, got {self.noise}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")

    @classmethod
    def of(cls, preset: Preset, learning_rate: float) -> "Schedule":
        """The schedule of a preset for a bundle whose base learning rate is learning_rate."""
        return cls(
            base_lr=learning_rate * preset.learning_rate,
            ramp_up=preset.ramp_up,
            ramp_down=preset.ramp_down,
            noise=preset.noise,
            betas=preset.betas,
        )

    def learning_rate(self, t: float) -> float:
        """The learning rate at t = step / steps in [0, 1). It is 0 at t = 0."""
        falling = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / self.ramp_down))
        return self.base_lr * falling * min(1.0, t / self.ramp_up)

    def noise_strength(self, t: float, latent_std: float) -> float:
        """The standard deviation σ of the noise added to w at t."""
        return latent_std * self.noise * max(0.0, 1 - t / self.noise_ramp) ** 2
