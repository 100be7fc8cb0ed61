"""The published optimisation, one request at a time: the baseline of the benchmarks and the oracle of the tests.

Written plainly from the published numbers (VoiceStyle, 10.1145/3671002); it shares no code with `voicestyle.engine`.
Each step embeds the voice again, computes all three terms of the loss, and computes gradients for the parameters of
all networks, although only w and the noise maps are optimised.
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
Generator = Callable[[Tensor, Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Step:
    """State after a step: w [1, L] and noise maps [1, 1, R, R]; similarity is the cos(voice, face) of this step."""

    latent: Tensor
    noise: list[Tensor]
    similarity: float


def published_loop(
    generator: Generator,
    encode_voice: Encoder,
    encode_face: Encoder,
    *,
    voice: Tensor,
    first_latent: Tensor,
    first_noise: Sequence[Tensor],
    latent_noise: Tensor,
    latent_std: float,
    image_size: int = 256,
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
        generator: images [1, 3, S, S] from w [1, L] and noise maps [1, 1, R, R].
        encode_voice: the embedding [1, E] of `voice`.
        encode_face: the embedding [1, E] of an image [1, 3, S, S] in [-1, 1], at most `image_size` pixels a side.
        voice: what encode_voice takes, such as a log-mel [1, 1, 64, T].
        first_latent: w before the first step [1, L].
        first_noise: noise maps before the first step [1, 1, R, R].
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
        image = generator(shifted, maps)
        if image.shape[-1] > image_size:
            image = F.avg_pool2d(image, image.shape[-1] // image_size)
        similarity = F.cosine_similarity(encode_voice(voice), encode_face(image.clamp(-1, 1))).sum()
        loss = 1 - similarity
        loss = loss + noise_regularisation * regulariser(maps)
        loss = loss + LATENT_REGULARISATION * (w - shifted).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for level in maps:
                level.copy_((level - level.mean()) / level.std())
        yield Step(w.detach().clone(), [level.detach().clone() for level in maps], similarity.item())


def regulariser(maps: Sequence[Tensor]) -> Tensor:
    """Correlation of adjacent values in noise maps [1, 1, R, R], summed over a pyramid of each map."""
    total = torch.zeros((), dtype=maps[0].dtype, device=maps[0].device)
    for level in maps:
        while True:
            total = total + (level * level.roll(1, dims=3)).mean() ** 2
            total = total + (level * level.roll(1, dims=2)).mean() ** 2
            if level.shape[-1] <= SMALLEST_MAP:
                break
            level = F.avg_pool2d(level, 2)
    return total
