"""Faces without optimisation steps: the mapper's latents, the similarity of their faces, and images.

Where `batched`, as on a GPU, a call of a network takes all items. Otherwise each item has a call of its own, so that no
bit of a face depends on the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voicestyle.bundle import Bundle
from voicestyle.devices import retry_out_of_memory
from voicestyle.engine import Objective, Outcome, draw_noise_maps
from voicestyle.images import to_pixels


class OnePass:
    """The forward passes of a bundle's networks, without gradients.

    objective: that of the optimisation.
    """

    def __init__(self, bundle: Bundle, objective: Objective, *, device: torch.device, batched: bool) -> None:
        self._bundle = bundle
        self._objective = objective
        self._device = device
        self._batched = batched

    @retry_out_of_memory
    @torch.no_grad()
    def map_latents(self, embeddings: Sequence[Tensor], first_latents: Sequence[Tensor]) -> list[Tensor]:
        """The mapper's latents for voice embeddings [E] and first latents, each [D] or [L, D] like its first latent.

        Raises RuntimeError for a bundle without a mapper.
        """
        found: list[Tensor] = []
        for call in self._calls(range(len(embeddings))):
            if self._bundle.mapper is None:
                raise RuntimeError("the bundle has no mapper")
            voices = torch.stack([embeddings[i] for i in call]).to(self._device)
            latents = torch.stack([first_latents[i] for i in call]).to(self._device)
            found += self._bundle.mapper(voices, latents).unbind()
        return found

    def outcome(self, latent: Tensor, seed: int) -> Outcome:
        """The outcome of no steps: the latent [D] or [L, D] and the noise maps that an optimisation starts from."""
        source = torch.Generator().manual_seed(seed)
        maps = draw_noise_maps(self._bundle.generator.noise_shapes, source, torch.float32)
        return Outcome(latent[None].to(self._device), [level[None].to(self._device) for level in maps], figures={})

    @retry_out_of_memory
    @torch.no_grad()
    def measure(self, outcomes: Sequence[Outcome], embeddings: Sequence[Tensor]) -> list[Outcome]:
        """The same outcomes with the objective's figures [1], those that a first step from there would report.

        embeddings: [E] of the voices.
        """
        found: list[Outcome] = []
        for call in self._calls(range(len(outcomes))):
            latents, noise = _join([outcomes[i] for i in call])
            voices = torch.stack([embeddings[i] for i in call]).to(latents)
            _, figures = self._objective(self._bundle.generator(latents, noise), [voices])
            for i, row in zip(call, figures.cpu(), strict=True):
                named = zip(self._objective.figures, row.split(1), strict=True)
                found.append(replace(outcomes[i], figures=dict(named)))
        return found

    @retry_out_of_memory
    @torch.no_grad()
    def render(self, outcomes: Sequence[Outcome], sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
        """The pixels [S, S, 3] of each outcome's face, one call for each of the sizes S where `batched`."""
        found: dict[int, NDArray[np.uint8]] = {}
        for size in dict.fromkeys(sizes):
            for call in self._calls([i for i, wanted in enumerate(sizes) if wanted == size]):
                latents, noise = _join([outcomes[i] for i in call])
                images = self._bundle.generator.render(latents, noise, size)
                found |= zip(call, map(to_pixels, images), strict=True)
        return [found[i] for i in range(len(sizes))]

    def _calls(self, items: Sequence[int]) -> Iterator[Sequence[int]]:
        """The items of each call: all of them where `batched`, and none makes no call; otherwise one."""
        each = max(1, len(items)) if self._batched else 1
        return (items[first : first + each] for first in range(0, len(items), each))


def _join(outcomes: Sequence[Outcome]) -> tuple[Tensor, list[Tensor]]:
    """The latents [N, D] or [N, L, D] and noise maps [N, 1, R, R] of N outcomes."""
    latents = torch.cat([outcome.latent for outcome in outcomes])
    levels = zip(*(outcome.noise for outcome in outcomes), strict=True)
    return latents, [torch.cat(level) for level in levels]
