"""Named ways to make a face: schedules relative to the bundle's default one, or one pass of the bundle's mapper."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

DEFAULT: Final = "default"
INSTANT: Final = "instant"


@dataclass(frozen=True)
class Preset:
    """Changes to a bundle's schedule; none by default.

    share: steps as a share of the bundle's default steps; 0 for none. learning_rate: factor for the bundle's learning
    rate. from_mapper: whether the bundle's mapper gives the latent that the steps start from, which a preset without
    steps needs. The others replace published values: ramp_up and ramp_down of the learning rate as shares of the
    steps, noise on w in units of its standard deviation, betas of Adam.
    """

    share: float = 1.0
    learning_rate: float = 1.0
    ramp_up: float = 0.05
    ramp_down: float = 0.25
    noise: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    from_mapper: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 and not (self.from_mapper and self.share == 0):
            raise ValueError(f"share must be in (0, 1], or 0 from the mapper, got {self.share}")

    def steps(self, default_steps: int) -> int:
        """Number of steps for a bundle's default number of steps; at least one unless the share is 0."""
        return max(1, int(default_steps * self.share)) if self.share else 0


# See docs/presets.md: with so few steps, momentum and noise only slow the optimisation down.
PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        DEFAULT: Preset(),
        "fast": Preset(share=0.25, learning_rate=3.0, noise=0.0, betas=(0.5, 0.999)),
        INSTANT: Preset(share=0.0, learning_rate=3.0, noise=0.0, betas=(0.5, 0.999), from_mapper=True),
    }
)
