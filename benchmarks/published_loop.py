"""The optimisation as it was published, taken word for word: what every variant of ours is compared with.

One request at a time. Each step embeds the voice anew, modulates by grouped convolutions, computes the loss with
its three terms, and lets the gradient run to every parameter of all networks, though only w and the noise maps
are optimised. Written from the numbers of this project's design; it shares no code with `voicestyle.engine`.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cmpc2 import CMPC

BASE_LR = 0.01
RAMP_UP, RAMP_DOWN = 0.05, 0.25
NOISE, NOISE_RAMP = 0.05, 0.75
NOISE_REGULARISATION = 1e5
LATENT_REGULARISATION = 0.001
SMALLEST_MAP = 8

Generator = Callable[[Tensor, Sequence[Tensor]], Tensor]


class PublishedLoop:
    """The optimisation of one request, step by step.

    Args:
        generator: w [1, 512] and noise maps to an image [1, 3, S, S].
        encoders: of voices and of faces, which see the image at `image_size` pixels.
        log_mel: the voice, [1, 1, 64, T].
        first_latent: [1, 512].
        noise: first noise maps [1, 1, R, R].
        latent_noise: ε for each step, [steps, 512].
        latent_std: sqrt(Σ(w_j − mean)² / 10,000).
    """

    def __init__(
        self,
        generator: Generator,
        encoders: CMPC,
        *,
        log_mel: Tensor,
        first_latent: Tensor,
        noise: Sequence[Tensor],
        latent_noise: Tensor,
        latent_std: float,
        image_size: int = 256,
    ) -> None:
        self.generator = generator
        self.encoders = encoders
        self.log_mel = log_mel
        self.latent_noise = latent_noise
        self.latent_std = latent_std
        self.image_size = image_size
        self.latent = first_latent.clone().requires_grad_()
        self.noise = [level.clone().requires_grad_() for level in noise]
        self.similarity: list[float] = []
        self.optimiser = torch.optim.Adam([self.latent, *self.noise], lr=BASE_LR)

    def step(self) -> None:
        """Take one step. Raises IndexError after the last."""
        i, steps = len(self.similarity), len(self.latent_noise)
        t = i / steps
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(t)
        shifted = self.latent + self.latent_noise[i] * noise_strength(t, self.latent_std)
        image = self.generator(shifted, self.noise)
        if image.shape[-1] > self.image_size:
            image = F.avg_pool2d(image, image.shape[-1] // self.image_size)
        voice = self.encoders.encode_voice(self.log_mel)
        face = self.encoders.encode_face(image.clamp(-1, 1))
        similarity = F.cosine_similarity(voice, face).sum()
        loss = 1 - similarity
        loss = loss + NOISE_REGULARISATION * regularisation(self.noise)
        loss = loss + LATENT_REGULARISATION * (self.latent - shifted).square().sum()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            for level in self.noise:
                level.sub_(level.mean()).div_(level.std())
        self.similarity.append(similarity.item())


def learning_rate(t: float) -> float:
    """The learning rate at t = step / steps."""
    falling = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / RAMP_DOWN))
    return BASE_LR * falling * min(1.0, t / RAMP_UP)


def noise_strength(t: float, latent_std: float) -> float:
    """The standard deviation of the noise on w at t."""
    return latent_std * NOISE * max(0.0, 1 - t / NOISE_RAMP) ** 2


def regularisation(noise: Sequence[Tensor]) -> Tensor:
    """How far neighbours in the noise maps [1, 1, R, R] depend on each other, over a pyramid of each."""
    total = torch.zeros((), device=noise[0].device)
    for level in noise:
        while True:
            for axis in (2, 3):
                total = total + (level * torch.roll(level, 1, dims=axis)).mean().square()
            if level.shape[-1] <= SMALLEST_MAP:
                break
            level = F.avg_pool2d(level, 2)
    return total
