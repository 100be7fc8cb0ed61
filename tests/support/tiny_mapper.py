"""A bundle for the training of a mapper whose face encoder can be pleased by one face for all voices.

A face's embedding is (w_0, w_1 / 20, …, w_7 / 20). All voices have a large positive first component, and differ in the
others. Raising w_0 in all faces brings them near to all voices at once; following a single voice takes a longer way.
"""

import numpy as np
import torch
from msgspec.structs import replace
from torch.nn import functional as F

from tests.support.tiny_bundle import tiny_parts
from voicestyle.bundle import Bundle
from voicestyle.latent_bank import LatentBank
from voicestyle.prototypes import Prototypes

DIM = 8
SIZE = 8  # pixels
PROTOTYPES = 200  # of one latent each, so that first faces differ
COMMON = 2.0  # what all voices share, beside a unit vector of their own


class PixelGenerator(torch.nn.Module):
    """Images whose pixels are w under an orthogonal map, with a little noise."""

    def __init__(self, rows=None):
        super().__init__()
        self.latent_dim: int = DIM
        self.latent_rows: int = rows or 1
        self.optimise_size: int = SIZE
        self.sizes: list[int] = [SIZE]
        self.noise_shapes: list[list[int]] = [[SIZE, SIZE]]
        self.register_buffer("weight", pixel_map())

    def forward(self, w: torch.Tensor, noise: list[torch.Tensor]) -> torch.Tensor:
        if w.dim() == 3:
            w = w.mean(dim=1)
        return (w @ self.weight.t()).view(-1, 3, SIZE, SIZE) + 0.001 * noise[0]


class PixelEncoder(torch.nn.Module):
    """The latent of a `PixelGenerator`'s image, with its first component twenty times as large as the others."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", pixel_map())
        self.register_buffer("scale", torch.tensor([1.0] + [0.05] * (DIM - 1)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight * self.scale


def pixel_map():
    source = torch.Generator().manual_seed(5)
    return torch.linalg.qr(torch.randn(3 * SIZE * SIZE, DIM, generator=source)).Q


def mapper_bundle(rows=None, **parts):
    """The bundle in memory; `rows`: L, for w+."""
    numbers = np.random.default_rng(1)
    shape = (PROTOTYPES, DIM) if rows is None else (PROTOTYPES, rows, DIM)
    manifest = replace(
        tiny_parts()["manifest"],
        image_size=SIZE,
        encoder_size=SIZE,
        sizes=(SIZE,),
        default_size=SIZE,
        latent_dim=DIM,
        latent_rows=rows,
        embedding_dim=DIM,
        prototypes=PROTOTYPES,
        nearest=1,
        instances=1,
    )
    return Bundle(
        manifest,
        voice_encoder=torch.nn.Identity(),
        face_encoder=PixelEncoder(),
        generator=PixelGenerator(rows),
        prototypes=Prototypes.from_centroids(numbers.standard_normal((PROTOTYPES, DIM)).astype(np.float32)),
        latent_bank=LatentBank(
            numbers.standard_normal(shape).astype(np.float32), np.arange(PROTOTYPES).astype(np.int32)
        ),
        **parts,
    )


def mapper_voices(speakers=60, each=2, seed=0):
    """Embeddings [8] of `speakers` speakers, `each` of them."""
    source = torch.Generator().manual_seed(seed)
    voices = []
    for speaker in range(speakers):
        own = F.normalize(torch.randn(DIM - 1, generator=source), dim=0)
        for _ in range(each):
            rest = own + 0.1 * torch.randn(DIM - 1, generator=source)
            voices.append((torch.cat([torch.full((1,), COMMON), rest]), f"speaker {speaker}"))
    return voices
