"""The published optimisation and inversion: the baselines of the benchmarks and the oracles of the tests.

Written plainly from the published numbers (VoiceStyle, 10.1145/3671002); it shares no code with `voicestyle.engine`.
Each step of the optimisation embeds the voice again, each step of the inversion the photograph. All terms of the loss
are computed, and gradients for the parameters of the networks, although only w and the noise maps are optimised.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LATENT_REGULARISATION = 0.001
SMALLEST_MAP = 8  # pixels a side of the last level of a noise map's pyramid

Encoder = Callable[[Tensor], Tensor]
Distance = Callable[[Tensor], Tensor]
Generator = Callable[[Tensor, Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Step:
    """State after a step: w [N, L] and noise maps [N, 1, R, R]; distance is that of this step, summed over items."""

    latent: Tensor
    noise: list[Tensor]
    distance: float

    @property
    def similarity(self) -> float:
        """The cos(voice, face) of one item, whose distance is 1 − it."""
        return 1 - self.distance


def voice_distance(encode_voice: Encoder, encode_face: Encoder, voice: Tensor, image_size: int = 256) -> Distance:
    """1 − cos(voice, face) of images [1, 3, S, S], which are average-pooled to image_size and clamped.

    encode_voice: the embedding [1, E] of `voice`, such as a log-mel [1, 1, 64, T]. encode_face: of an image.
    """

    def distance(image: Tensor) -> Tensor:
        image = _pooled(image, image_size).clamp(-1, 1)
        return 1 - F.cosine_similarity(encode_voice(voice), encode_face(image)).sum()

    return distance


def photograph_distance(
    perceptual: Callable[[Tensor, Tensor], Tensor], identity: Encoder, photographs: Tensor
) -> Distance:
    """LPIPS + 1 − the dot product of identity embeddings, of images [N, 3, S, S], which are average-pooled to 256.

    perceptual: LPIPS [N] of two batches of images. identity: unit vectors [N, E] of images.
    """

    def distance(image: Tensor) -> Tensor:
        image = _pooled(image, photographs.shape[-1])
        apart = 1 - (identity(image) * identity(photographs).detach()).sum(dim=1)
        return (perceptual(image, photographs) + apart).sum()

    return distance


def published_loop(
    generator: Generator,
    distance: Distance,
    *,
    first_latent: Tensor,
    first_noise: Sequence[Tensor],
    latent_noise: Tensor,
    latent_std: float,
    base_lr: float = 0.01,
    ramp_up: float = 0.05,
    ramp_down: float = 0.25,
    noise: float = 0.05,
    noise_ramp: float = 0.75,
    noise_regularisation: float = 1e5,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> Iterator[Step]:
    """Take as many steps as `latent_noise` has rows, and yield the state after each one.

    Args:
        generator: images [N, 3, S, S] from w [N, L] and noise maps [N, 1, R, R].
        distance: of these images to their voice or photographs, summed over items.
        first_latent: w before the first step [N, L].
        first_noise: noise maps before the first step [N, 1, R, R].
        latent_noise: ε of each step [steps, L].
        latent_std: sqrt(Σ(w_j − mean)² / samples), over all samples and all components of w.
        base_lr … eps: numbers of the schedule and of Adam, named as in `voicestyle.engine.Schedule`.
    """
    w = first_latent.clone().requires_grad_()
    maps = [level.clone().requires_grad_() for level in first_noise]
    optimiser = torch.optim.Adam([w, *maps], betas=betas, eps=eps)
    steps = len(latent_noise)
    for i in range(steps):
        t = i / steps
        falling = 0.5 - 0.5 * math.cos(math.pi * min(1, (1 - t) / ramp_down))
        optimiser.param_groups[0]["lr"] = base_lr * falling * min(1, t / ramp_up)
        sigma = latent_std * noise * max(0, 1 - t / noise_ramp) ** 2
        shifted = w + sigma * latent_noise[i]
        apart = distance(generator(shifted, maps))
        loss = apart + noise_regularisation * regulariser(maps)
        loss = loss + LATENT_REGULARISATION * (w - shifted).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for level in maps:
                level.copy_((level - level.mean()) / level.std())
        yield Step(w.detach().clone(), [level.detach().clone() for level in maps], apart.item())


def _pooled(image: Tensor, size: int) -> Tensor:
    return F.avg_pool2d(image, image.shape[-1] // size) if image.shape[-1] > size else image


def regulariser(maps: Sequence[Tensor]) -> Tensor:
    """Correlation of adjacent values in noise maps [N, 1, R, R], summed over a pyramid of each map.

    As published, the mean is over the whole batch: items of a batch of several depend on each other.
    """
    total = torch.zeros((), dtype=maps[0].dtype, device=maps[0].device)
    for level in maps:
        while True:
            total = total + (level * level.roll(1, dims=3)).mean() ** 2
            total = total + (level * level.roll(1, dims=2)).mean() ** 2
            if level.shape[-1] <= SMALLEST_MAP:
                break
            level = F.avg_pool2d(level, 2)
    return total
