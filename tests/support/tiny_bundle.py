"""A tiny bundle that is built in a second: a 32-pixel generator with one noise map, and encoders of 8 components."""

import numpy as np
import torch
from msgspec.structs import replace

from cmpc2 import ResNet, ResNetConfig
from voicestyle.manifest import Limits, Manifest


class TinyGenerator(torch.nn.Module):
    """The interface of a real generator, 32 pixels, with one noise map; scriptable."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim: int = 512
        self.latent_rows: int = 2
        self.optimise_size: int = 32
        self.sizes: list[int] = [32, 64]
        self.noise_shapes: list[list[int]] = [[8, 8]]
        source = torch.Generator().manual_seed(3)
        self.register_buffer("weight", torch.randn(512, 3 * 8 * 8, generator=source) / 20)

    @torch.jit.export
    def map(self, z: torch.Tensor) -> torch.Tensor:
        return z

    def forward(self, w: torch.Tensor, noise: list[torch.Tensor]) -> torch.Tensor:
        if w.dim() == 3:
            w = w.mean(dim=1)
        image = torch.tanh(w @ self.weight).view(-1, 3, 8, 8) + 0.05 * noise[0]
        return torch.nn.functional.interpolate(image, scale_factor=4.0, mode="bilinear")

    @torch.jit.export
    def render(self, w: torch.Tensor, noise: list[torch.Tensor], size: int) -> torch.Tensor:
        return torch.nn.functional.interpolate(self.forward(w, noise), size=[size, size])


TINY_ENCODER = ResNetConfig(widths=(4, 4, 8, 8), depths=(1, 1, 1, 1), embedding_dim=8)


def tiny_parts():
    """Arguments of `write_bundle` for a bundle of 5 prototypes and 40 latents."""
    torch.manual_seed(0)
    numbers = np.random.default_rng(0)
    manifest = Manifest(
        name="tiny",
        version="7",
        licence="none",
        sources=("made in the tests",),
        card="a test",
        image_size=32,
        encoder_size=32,
        sizes=(32, 64),
        embedding_dim=8,
        latent_dim=512,
        latent_std=20.0,
        prototypes=5,
        prototype_level=5,
        nearest=3,
        instances=8,
        instance_choice="first",
        learning_rate=0.01,
        default_steps=6,
        default_seed=0,
        default_size=64,
        limits=Limits(steps=40, audio_seconds=20.0, min_speech_seconds=0.5),
    )
    return {
        "manifest": manifest,
        "voice_encoder": ResNet(1, TINY_ENCODER).eval(),
        "face_encoder": ResNet(3, TINY_ENCODER).eval(),
        "generator": TinyGenerator().eval(),
        "centroids": numbers.standard_normal((5, 8)).astype(np.float32),
        "latents": numbers.standard_normal((40, 512)).astype(np.float32),
        "assignments": (np.arange(40) % 5).astype(np.int32),
    }


class TinyMapper(torch.nn.Module):
    """Adds a product of the voice to the first latent; scriptable. No sum crosses items."""

    def __init__(self) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(4)
        self.register_buffer("weight", torch.randn(8, 512, generator=source))

    def forward(self, embedding: torch.Tensor, first_latent: torch.Tensor) -> torch.Tensor:
        shift = torch.nn.functional.normalize(embedding, dim=1) @ self.weight
        if first_latent.dim() == 3:
            shift = shift.unsqueeze(1)
        return first_latent + shift


def tiny_parts_with_mapper():
    """The same with a mapper."""
    parts = tiny_parts()
    return parts | {"manifest": replace(parts["manifest"], mapper=True), "mapper": TinyMapper().eval()}
