"""The tiny bundle with all optional parts: its own front end, a latent map, a prior and a mapper."""

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from tests.support.tiny_bundle import tiny_parts
from voicestyle.latent_map import LatentMap
from voicestyle.latent_prior import LatentPrior
from voicestyle.manifest import Prior

BANDS = 6
GROUPS = np.array([0, 0, 1, 1, 1], np.int32)  # of the five prototypes


class BandEnergies(nn.Module):
    """Log energies of six bands of 1 kHz, every 10 ms: samples [n] to [1, 6, n // 160]."""

    def forward(self, samples: Tensor) -> Tensor:
        frames = samples[: len(samples) // 160 * 160].view(-1, 160)
        spectrum = torch.fft.rfft(frames).abs()[:, 1:61]
        return torch.log(spectrum.view(-1, 6, 10).mean(dim=2) + 1e-4).t().unsqueeze(0)


class BandEncoder(nn.Module):
    """Mean and deviation of each band over time: [N, 1, 6, T] to [N, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * BANDS, 8)

    def forward(self, features: Tensor) -> Tensor:
        bands = features[:, 0]
        return self.linear(torch.cat([bands.mean(dim=2), bands.std(dim=2)], dim=1))


class ColourEncoder(nn.Module):
    """Mean colours of sixteen squares: [N, 3, 32, 32] to [N, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(nn.functional.avg_pool2d(images, 8).flatten(1))


class Shift(nn.Module):
    """A mapper that adds a linear function of the embedding to the first latent."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 512)

    def forward(self, embedding: Tensor, first_latent: Tensor) -> Tensor:
        shift = self.linear(nn.functional.normalize(embedding, dim=1))
        return first_latent + (shift if first_latent.dim() == 2 else shift.unsqueeze(1))


def tiny_map(*rows: int) -> LatentMap:
    """A map of the tiny bundle's two groups; rows: [L] for w+."""
    numbers = np.random.default_rng(5)
    weight = numbers.standard_normal((2, *rows, 512, 8), np.float32)
    return LatentMap(weight, numbers.standard_normal((2, *rows, 512), np.float32), GROUPS)


def optional_parts(*, with_prior=False):
    """Arguments of `write_bundle` for the tiny bundle with its own front end, a map, a mapper, and perhaps a prior."""
    parts = tiny_parts()
    manifest = replace(parts["manifest"], front_end="own", first_latent="map", mapper=True)
    if with_prior:
        manifest = replace(manifest, prior=Prior(weight=1.0, centre="bank", hold=True))
        parts["latent_prior"] = LatentPrior.fit(parts["latents"], held=np.eye(2, 512, dtype=np.float32))
    return parts | {
        "manifest": manifest,
        "front_end": BandEnergies().eval(),
        "voice_encoder": BandEncoder().eval(),
        "face_encoder": ColourEncoder().eval(),
        "latent_map": tiny_map(),
        "mapper": Shift().eval(),
    }
