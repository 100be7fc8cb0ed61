"""Schedules of the optimisation by name, each in terms of the bundle's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

DEFAULT: Final = "default"


@dataclass(frozen=True)
class Preset:
    """What becomes of a bundle's schedule; by default nothing.

    share: of the bundle's default steps. learning_rate: a factor on the bundle's. The rest takes the place of the
    published numbers: ramps of the learning rate in shares of the steps, noise on w in units of its standard
    deviation, Adam's betas.
    """

    share: float = 1.0
    learning_rate: float = 1.0
    ramp_up: float = 0.05
    ramp_down: float = 0.25
    noise: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is of the default steps, in (0, 1], got {self.share}")

    def steps(self, default_steps: int) -> int:
        """How many steps where a bundle has so many by default; at least one."""
        return max(1, int(default_steps * self.share))


# Found by benchmarks/schedules.py (docs/presets.md): in so few steps momentum and noise only delay.
PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        DEFAULT: Preset(),
        "fast": Preset(share=0.25, learning_rate=3.0, noise=0.0, betas=(0.5, 0.999)),
    }
)
