"""Random weights in the published forms, the same on every machine, with activations of a trained network's size.

Speed and memory do not depend on what was trained, and what rounding does to the optimisation hardly does.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmpc2 import CMPC, ResNetConfig
from voicestyle.generators import StyleGAN2Config
from voicestyle.generators.stylegan2_checkpoint import published_shapes

State = dict[str, Tensor]

MAPPING_SCALE = 100.0  # the mapping network multiplies its weights by 0.01
IMAGE_SCALE = 0.2  # of each layer's share in the image, so that their sum seldom leaves [-1, 1]
LATENT_STD = 14.655  # what `latent_std` finds, in a second, for the mapping network of seed 0
PICTURES = 16
IMAGE_STD, LOG_MEL_STD = 0.3, 1.0


def stylegan2_weights(config: StyleGAN2Config, seed: int = 0) -> State:
    """The `g_ema` of a file: float32 by published names, of equalised learning rate."""
    source = torch.Generator().manual_seed(seed)
    weights: State = {}
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


def encoders(config: ResNetConfig, seed: int = 1) -> CMPC:
    """Both encoders in evaluation mode, their parameters as PyTorch makes them: none is frozen.

    Batch normalisation has the statistics of random pictures, so that, as in trained encoders, different pictures get
    different embeddings.
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
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # one pass sets the statistics
    model.train()
    model(LOG_MEL_STD * _pictures(1, (64, 256), source), IMAGE_STD * _pictures(3, (128, 128), source))
    return model.eval().requires_grad_(True)


def _pictures(channels: int, size: tuple[int, int], source: torch.Generator) -> Tensor:
    """[PICTURES, channels, *size] of blurred noise, rough and fine, of standard deviation 1."""
    total = torch.zeros(PICTURES, channels, *size)
    for share in (16, 4, 1):
        coarse = torch.randn(PICTURES, channels, size[0] // share, size[1] // share, generator=source)
        total += F.interpolate(coarse, size, mode="bilinear", align_corners=False)
    return total / total.std()
