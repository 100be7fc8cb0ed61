"""What the engine reports about an item: its progress, and what its optimisation has reached."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """The progress of one item. `similarity` is cos(voice, face) of its last step, NaN before the first."""

    step: int
    steps: int
    similarity: float


@dataclass(frozen=True)
class Outcome:
    """What the optimisation of one item has reached.

    latent [1, latent_dim] and noise maps [1, 1, R, R] on the engine's device; similarity [step] on the CPU.
    """

    latent: Tensor
    noise: list[Tensor]
    similarity: Tensor
