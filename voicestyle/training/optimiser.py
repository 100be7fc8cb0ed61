"""Optimiser and learning rate: half a cosine over all steps, multiplied by a linear warm-up."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from voicestyle.training.errors import TrainingError

Name = Literal["adam", "adamw", "sgd"]


@dataclass(frozen=True)
class OptimiserOptions:
    """Defaults: those of CMPC's own training.

    learning_rate, final_learning_rate: where the cosine starts and ends. warm_up: share of all steps during which the
    rate rises from nearly 0 to the cosine. momentum: of sgd. clip: largest norm of the gradient, 0 for no limit.
    """

    name: Name = "adam"
    learning_rate: float = 5e-3
    final_learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    warm_up: float = 0.1
    momentum: float = 0.9
    clip: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in get_args(Name):
            raise TrainingError(f"the optimiser must be one of {', '.join(get_args(Name))}, received {self.name!r}")
        if not 0 <= self.final_learning_rate <= self.learning_rate or self.learning_rate == 0:
            raise TrainingError(
                "learning rates must be 0 ≤ final_learning_rate ≤ learning_rate > 0, "
                f"received {self.final_learning_rate} and {self.learning_rate}"
            )
        if not 0 <= self.warm_up < 1 or min(self.weight_decay, self.momentum, self.clip) < 0:
            raise TrainingError(
                "warm_up must be in [0, 1), and weight_decay, momentum and clip at least 0, received "
                f"{self.warm_up}, {self.weight_decay}, {self.momentum} and {self.clip}"
            )

    def create(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimiser of `parameters`."""
        rate, decay = self.learning_rate, self.weight_decay
        if self.name == "sgd":
            return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=self.momentum)
        kind = torch.optim.AdamW if self.name == "adamw" else torch.optim.Adam
        return kind(parameters, lr=rate, weight_decay=decay)

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The learning rate of step 0 … steps − 1."""
        warm = min(1.0, (step + 1) / (self.warm_up * steps + 1))
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        return warm * (self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * cosine)
