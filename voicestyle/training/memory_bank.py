"""Memory banks: a moving average of the embeddings of every training item, in both modalities."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

MODALITIES = ("voice", "face")


class MemoryBank:
    """`voice`, `face`: float32 [N, E], L2-normalised; a row is 0 until its item was in a batch.

    A new embedding z changes its row m to normalised(momentum·m + (1 − momentum)·z); the first one replaces the 0.
    """

    def __init__(self, count: int, dim: int, momentum: float, device: torch.device | None = None) -> None:
        self.momentum = momentum
        self.features = {name: torch.zeros(count, dim, device=device) for name in MODALITIES}

    @property
    def voice(self) -> Tensor:
        """The bank of voices [N, E]."""
        return self.features["voice"]

    @property
    def face(self) -> Tensor:
        """The bank of faces [N, E]."""
        return self.features["face"]

    def update(self, rows: Tensor, voices: Tensor, faces: Tensor) -> None:
        """Mix in the embeddings [n, E] of the items `rows`, int64 [n], each at most once."""
        for bank, new in ((self.voice, voices), (self.face, faces)):
            new = F.normalize(new.detach().to(bank.dtype), dim=1)
            old = bank[rows]
            kept = torch.where(old.any(1, keepdim=True), self.momentum, 0.0)
            bank[rows] = F.normalize(kept * old + (1 - kept) * new, dim=1)

    def all_seen(self) -> bool:
        """Whether every item was in a batch."""
        return all(bool(bank.any(1).all()) for bank in self.features.values())

    def state(self) -> dict[str, Tensor]:
        """Both banks, for a checkpoint."""
        return dict(self.features)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Copy both banks from `state`."""
        for name, bank in self.features.items():
            bank.copy_(state[name])
