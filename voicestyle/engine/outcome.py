"""What the engine tells of a request: how far it is, and what it came to."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """How far one request is. `similarity` is cos(voice, face) of its last step, NaN before the first."""

    step: int
    steps: int
    similarity: float

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step == self.steps


@dataclass(frozen=True)
class Outcome:
    """What the optimisation of one request came to.

    latent [1, latent_dim] and noise maps [1, 1, R, R] on the engine's device; similarity [step] on the CPU.
    """

    latent: Tensor
    noise: list[Tensor]
    similarity: Tensor
    largest_batch: int
