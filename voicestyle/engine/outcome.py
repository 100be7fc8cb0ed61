"""What the engine reports about an item: its progress, and what its optimisation has reached."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """The progress of one item. `figures` are the objective's, of the item's last step; NaN before the first."""

    step: int
    steps: int
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """What the optimisation of one item has reached.

    latent [1, D] or [1, L, D] and noise maps [1, 1, R, R] on the engine's device; each of the objective's figures at
    each step [step] on the CPU.
    """

    latent: Tensor
    noise: list[Tensor]
    figures: Mapping[str, Tensor]
