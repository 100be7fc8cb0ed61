"""Inversion: the latents whose images are nearest to photographs, by the engine that also optimises faces for voices.

The published recipe (VoiceStyle, 10.1145/3671002; the projection of arXiv 1912.04958, appendix D): start at the mean of
10,000 latents, take 300 steps with a base learning rate of 0.1, keep the latent and drop the noise maps.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voicestyle.engine import Engine, Generator, Outcome, Schedule
from voicestyle.generators.latents import Mapper, latent_statistics
from voicestyle.images import to_image, to_pixels
from voicestyle.inversion.loss import InversionLoss
from voicestyle.inversion.terms import IMAGE_SIZE, psnr, resized

Pixels = NDArray[np.uint8]

GPU_BATCH = 8
LEARNING_RATE, W_PLUS_LEARNING_RATE = 0.1, 0.05


@dataclass(frozen=True)
class InversionOptions:
    """Options of an inversion.

    steps, learning_rate: of the schedule; the rate is 0.1 by default, as published, and 0.05 for w+, which leaves the
    generator's range at 0.1. w_plus: optimise a latent row for each layer of the generator. seed: of all random
    numbers, together with the key of a photograph.
    """

    steps: int = 300
    learning_rate: float | None = None
    w_plus: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", W_PLUS_LEARNING_RATE if self.w_plus else LEARNING_RATE)
        elif self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in 0 … 2³² − 1, got {self.seed}")


@dataclass(frozen=True)
class Inversion:
    """The inversion of a photograph.

    latent: float32 [512], or [L, 512] for w+. image: uint8 [256, 256, 3], the generator's image of this latent and the
    optimised noise maps, which are not kept. losses: each term of the loss at each step. psnr: of the image against the
    photograph, in dB. identity: cosine of both by the loss's identity network.
    """

    key: str
    latent: NDArray[np.float32]
    image: Pixels
    losses: dict[str, list[float]]
    psnr: float
    identity: float


class Inverter:
    """Inverts photographs with a frozen generator, several in one batch.

    The latent of a photograph depends on its pixels, its key and the options alone. On a CPU this is exact; in a batch
    on a GPU, up to rounding.

    Args:
        generator: with the interface of docs/bundle.md.
        loss: the objective of the engine, on the same device.
        batch: most photographs at once; by default 8, or 1 on a CPU, where the engine is sequential: its results are
            the same, one after the other.
    """

    def __init__(
        self,
        generator: object,
        loss: InversionLoss,
        options: InversionOptions = InversionOptions(),
        *,
        batch: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.options = options
        self.loss_name = loss.name
        self.device = torch.device(device)
        self._loss = loss
        self._generator = cast(Generator, generator)
        mean, std = latent_statistics(_Mapper(cast(Mapper, generator), self.device))
        rows = cast(int, cast(Any, generator).latent_rows) if options.w_plus else None
        self._first_latent = mean if rows is None else mean.expand(rows, -1)
        self._engine = Engine(
            self._generator,
            loss,
            latent_std=std,
            latent_rows=rows,
            capacity=batch or (1 if self.device.type == "cpu" else GPU_BATCH),
            max_steps=options.steps,
            schedule=Schedule(base_lr=options.learning_rate or LEARNING_RATE),
            device=device,
        )

    def invert(
        self, photographs: Iterable[tuple[str, Pixels]], on_step: Callable[[int], object] | None = None
    ) -> Iterator[Inversion]:
        """Yield the inversion of each photograph (key, aligned pixels [256, 256, 3]), as they finish.

        A photograph joins the batch as soon as a slot is free. on_step: called after each step with the number of
        photographs that took it.

        Raises ValueError for a key that is already in the batch, or pixels of another shape.
        """
        waiting, running = iter(photographs), dict[str, Tensor]()
        more = True
        try:
            while more or running:
                while more and len(running) < self._engine.capacity:
                    following = next(waiting, None)
                    more = following is not None
                    if following is not None:
                        key, pixels = following
                        running[key] = self._start(key, pixels)
                if running:
                    finished = self._engine.step()
                    if on_step:
                        on_step(len(running))
                    for key in finished:
                        outcome = self._engine.outcome(key)
                        self._engine.remove(key)
                        yield self._inversion(str(key), outcome, running.pop(str(key)))
        finally:
            for key in running:  # after an error, or if the caller stops early; the next call needs an empty batch
                self._engine.remove(key)

    def _start(self, key: str, pixels: Pixels) -> Tensor:
        if pixels.shape != (IMAGE_SIZE, IMAGE_SIZE, 3):
            raise ValueError(f"a photograph must be [{IMAGE_SIZE}, {IMAGE_SIZE}, 3], got {list(pixels.shape)}")
        photograph = to_image(pixels).to(self.device)
        self._engine.add(
            key,
            self._loss.target(photograph),
            self._first_latent,
            seed=item_seed(self.options.seed, key),
            steps=self.options.steps,
        )
        return photograph

    @torch.no_grad()
    def _inversion(self, key: str, outcome: Outcome, photograph: Tensor) -> Inversion:
        image = resized(self._generator(outcome.latent, outcome.noise)).clamp(-1, 1)
        ours, theirs = (self._loss.network.embed(each) for each in (image, photograph[None]))
        return Inversion(
            key=key,
            latent=outcome.latent[0].float().cpu().numpy(),
            image=to_pixels(image[0]),
            losses={name: values.tolist() for name, values in outcome.figures.items()},
            psnr=float(psnr(image, photograph[None])),
            identity=float((ours * theirs).sum()),
        )


class _Mapper:
    """Maps z on the generator's device; its latents come back to the CPU."""

    def __init__(self, generator: Mapper, device: torch.device) -> None:
        self._generator, self._device = generator, device

    def map(self, z: Tensor) -> Tensor:
        """z [N, 512] to w [N, 512]."""
        return self._generator.map(z.to(self._device)).float().cpu()


def item_seed(seed: int, key: str) -> int:
    """The seed of one photograph, from the run's seed and its key alone, not from its place in a list or a shard."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
