"""The numbers in which the steps of two items differ: one computation serves items at any step of any schedule."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from voicestyle.engine import adam
from voicestyle.engine.schedule import Schedule

Number = TypeVar("Number", float, Tensor)


class StepNumbers(NamedTuple, Generic[Number]):
    """The numbers of a step: floats of one item, computed in float64 on the host, or tensors [N] of a batch."""

    step: Number  # counted from 0
    noise_strength: Number  # σ of the noise on w
    noise_regularisation: Number
    step_size: Number
    second_correction: Number
    first_weight: Number
    second_decay: Number
    second_weight: Number
    eps: Number
    prior_weight: Number
    hold: Number  # 1 where the held directions of the prior are held, else 0

    @classmethod
    def at(
        cls,
        schedule: Schedule,
        step: int,
        steps: int,
        latent_std: float,
        prior_weight: float = 0.0,
        hold: bool = False,
    ) -> "StepNumbers[float]":
        """The numbers of `step` of an item, 0 … steps − 1."""
        t = step / steps
        first_correction, second_correction = adam.corrections(step, schedule.betas)
        return StepNumbers(
            step=step,
            noise_strength=schedule.noise_strength(t, latent_std),
            noise_regularisation=schedule.noise_regularisation,
            step_size=schedule.learning_rate(t) / first_correction,
            second_correction=second_correction,
            # Subtracted here, because the differences would be other ones in float32.
            first_weight=1 - schedule.betas[0],
            second_decay=schedule.betas[1],
            second_weight=1 - schedule.betas[1],
            eps=schedule.eps,
            prior_weight=prior_weight,
            hold=float(hold),
        )

    @staticmethod
    def pack(items: "Sequence[StepNumbers[float]]", device: torch.device, dtype: torch.dtype) -> Tensor:
        """The numbers of a batch as one tensor [K, N], so that one copy takes them to the device."""
        # From pinned memory; otherwise the host would wait for all pending work of the GPU.
        packed = torch.tensor(list(zip(*items, strict=True)), dtype=dtype, pin_memory=device.type == "cuda")
        return packed.to(device, non_blocking=True)

    @classmethod
    def unpack(cls, packed: Tensor) -> "StepNumbers[Tensor]":
        """Views [N] of the result of `pack`."""
        return StepNumbers(*packed.unbind())
