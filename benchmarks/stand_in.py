"""Random weights in the published forms, the same on every machine, with activations of a trained network's size.

Speed and memory do not depend on what was trained, and what rounding does to the optimisation hardly does.
"""

import math

import torch
from torch import Tensor

from cmpc2 import CMPC, ResNetConfig
from voicestyle.generators import StyleGAN2Config
from voicestyle.generators.stylegan2_checkpoint import published_shapes

State = dict[str, Tensor]

MAPPING_SCALE = 100.0  # the mapping network multiplies its weights by 0.01
IMAGE_SCALE = 0.2  # of each layer's share in the image, so that their sum seldom leaves [-1, 1]
SECOND_SCALE = 0.5  # of a residual branch, so that features do not grow from block to block


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
    """Both encoders in evaluation mode, their parameters as PyTorch makes them: none is frozen."""
    source = torch.Generator().manual_seed(seed)
    model = CMPC(config, config)
    weights = model.state_dict()
    for key, value in weights.items():
        if not value.is_floating_point():
            continue
        draw = torch.randn(value.shape, generator=source)
        if value.dim() > 1:  # a convolution, [out, in, K, K]
            draw = draw * math.sqrt(2 / math.prod(value.shape[1:]))
        elif key.endswith("bias"):
            draw = 0.1 * draw
        elif key.endswith("running_mean"):
            draw = torch.zeros_like(draw)
        elif key.endswith("running_var"):
            draw = torch.ones_like(draw)
        else:
            draw = (SECOND_SCALE if ".bn2." in key else 1) * (1 + 0.1 * draw)
        weights[key] = draw
    model.load_state_dict(weights)
    return model.eval()
