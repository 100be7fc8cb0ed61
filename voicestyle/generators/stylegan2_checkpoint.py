"""Check published StyleGAN2 checkpoints, `{"g_ema": state_dict, …}`, and convert their weights.

Published weights are trained with an equalised learning rate: the published code multiplies each by a constant
1 / √fan-in (in the mapping network also by 0.01) wherever it is used. The conversion multiplies by these constants and
by the gains of the activations once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cmpc2.checkpoint import check_weights, read_state_dict
from cmpc2.errors import CheckpointError
from voicestyle.generators.latents import LATENT_DIM, MAPPING_LAYERS
from voicestyle.generators.stylegan2 import BASE_SIZE, SIZES, StyleGAN2, StyleGAN2Config, blur_kernel

WEIGHTS = "g_ema"
MAPPING_LR = 0.01
GAIN = math.sqrt(2)  # of each activation

State = dict[str, Tensor]
Shapes = dict[str, list[int]]


@dataclass(frozen=True)
class StyleGAN2Contents:
    """Content of a checkpoint: the network's configuration and the optional entries.

    noise_buffers: the `noises.*` in the file; older files lack some or all of them. blur_kernels: constants that some
    files contain. Neither is used: noise maps are variables, and the kernel is part of the architecture.
    """

    config: StyleGAN2Config
    noise_buffers: tuple[str, ...]
    blur_kernels: tuple[str, ...]

    def __str__(self) -> str:
        config = self.config
        return (
            f"StyleGAN2 of {config.size} pixels, channel multiplier {config.channel_multiplier}; ignored: "
            f"{len(self.noise_buffers)} of {config.latent_rows - 1} noise buffers, "
            f"{len(self.blur_kernels)} blur kernels"
        )


def read_stylegan2(path: Path, dtype: torch.dtype = torch.float32) -> tuple[StyleGAN2, StyleGAN2Contents]:
    """Read a generator in eval mode, and describe the content of its file.

    path: `{"g_ema": state_dict, …}`. Size and channel multiplier are inferred from the shapes. dtype: of the weights
    and of their conversion.

    Raises CheckpointError for a file that torch cannot read with `weights_only=True`, an unsupported size, and missing,
    unexpected, misshapen or non-finite weights; OSError for a path that cannot be opened.
    """
    weights = read_state_dict(path, WEIGHTS)
    config = infer_config(path, weights)
    required, noise, kernels = published_shapes(config), noise_shapes(config), kernel_shapes(config)
    present = [{key: shape for key, shape in optional.items() if key in weights} for optional in (noise, kernels)]
    rule = f"must contain exactly the weights of a StyleGAN2 of {config.size} pixels"
    check_weights(path, weights, required | present[0] | present[1], rule)
    for key in present[1]:
        if not torch.allclose(weights[key].double(), blur_kernel().double(), rtol=1e-4):
            raise CheckpointError(f"{path}: {key} must be the kernel [1, 3, 3, 1]; other kernels are not supported")
    generator = StyleGAN2(config).to(dtype)
    generator.load_state_dict(_converted({key: weights[key].to(dtype) for key in required}, generator), strict=True)
    return generator.eval(), StyleGAN2Contents(config, tuple(present[0]), tuple(present[1]))


def infer_config(path: Path, weights: Mapping[str, Tensor]) -> StyleGAN2Config:
    """Infer the network's size from the shapes of a few weights. Raises CheckpointError for an unsupported network."""
    blocks = sum(f"to_rgbs.{i}.conv.weight" in weights for i in range(len(weights)))
    size = BASE_SIZE * 2**blocks
    if size not in SIZES:
        raise CheckpointError(f"{path} must contain a StyleGAN2 of {SIZES[0]} to {SIZES[-1]} pixels, got one of {size}")
    first = weights.get("input.input")
    if first is None or first.dim() != 4 or not first.shape[1]:
        raise CheckpointError(f"{path} must contain the learned input `input.input` [1, C, 4, 4]")
    last = weights[f"to_rgbs.{blocks - 1}.conv.weight"]
    width = last.shape[2] if last.dim() == 5 else 0
    published = StyleGAN2Config(size, 2, first.shape[1])
    return published if published.widths[-1] == width else StyleGAN2Config(size, 1, first.shape[1])


def published_shapes(config: StyleGAN2Config) -> Shapes:
    """Names and shapes of the required weights, in the order of published files."""
    widths = config.widths
    shapes: Shapes = {}
    for i in range(1, MAPPING_LAYERS + 1):
        shapes[f"style.{i}.weight"] = [LATENT_DIM, LATENT_DIM]
        shapes[f"style.{i}.bias"] = [LATENT_DIM]
    shapes["input.input"] = [1, widths[0], BASE_SIZE, BASE_SIZE]
    shapes |= _layer_shapes("conv1", widths[0], widths[0]) | _image_shapes("to_rgb1", widths[0])
    for i in range(1, len(widths)):
        shapes |= _layer_shapes(f"convs.{2 * i - 2}", widths[i - 1], widths[i])
        shapes |= _layer_shapes(f"convs.{2 * i - 1}", widths[i], widths[i])
    for i in range(1, len(widths)):
        shapes |= _image_shapes(f"to_rgbs.{i - 1}", widths[i])
    return shapes


def noise_shapes(config: StyleGAN2Config) -> Shapes:
    """Names and shapes of the optional noise maps."""
    sizes = [BASE_SIZE * 2 ** ((i + 1) // 2) for i in range(config.latent_rows - 1)]
    return {f"noises.noise_{i}": [1, 1, size, size] for i, size in enumerate(sizes)}


def kernel_shapes(config: StyleGAN2Config) -> Shapes:
    """Names and shapes of the optional blur kernels: one per upsampling convolution and one per upsampled image."""
    blocks = range(len(config.widths) - 1)
    names = [f"convs.{2 * i}.conv.blur.kernel" for i in blocks] + [f"to_rgbs.{i}.upsample.kernel" for i in blocks]
    return {name: [4, 4] for name in names}


def _modulation_shapes(name: str, channels: int) -> Shapes:
    return {f"{name}.modulation.weight": [channels, LATENT_DIM], f"{name}.modulation.bias": [channels]}


def _layer_shapes(name: str, before: int, after: int) -> Shapes:
    shapes = {f"{name}.conv.weight": [1, after, before, 3, 3]} | _modulation_shapes(f"{name}.conv", before)
    return shapes | {f"{name}.noise.weight": [1], f"{name}.activate.bias": [after]}


def _image_shapes(name: str, channels: int) -> Shapes:
    shapes = {f"{name}.bias": [1, 3, 1, 1], f"{name}.conv.weight": [1, 3, channels, 1, 1]}
    return shapes | _modulation_shapes(f"{name}.conv", channels)


def _converted(theirs: State, generator: StyleGAN2) -> State:
    """The generator's state_dict: published weights multiplied by all constants, and the generator's blur kernels."""
    ours: State = {key: value for key, value in generator.state_dict().items() if key.split(".")[-1] == "blur"}
    for i in range(MAPPING_LAYERS):
        weight, bias = theirs[f"style.{i + 1}.weight"], theirs[f"style.{i + 1}.bias"]
        ours[f"mapping.layers.{i}.weight"] = weight * (GAIN * MAPPING_LR / math.sqrt(LATENT_DIM))
        ours[f"mapping.layers.{i}.bias"] = bias * (GAIN * MAPPING_LR)
    ours["input"] = theirs["input.input"]
    ours |= _layer(theirs, "conv1", "conv", upsample=False) | _image(theirs, "to_rgb1", "to_image")
    for i in range(len(generator.blocks)):
        ours |= _layer(theirs, f"convs.{2 * i}", f"blocks.{i}.up", upsample=True)
        ours |= _layer(theirs, f"convs.{2 * i + 1}", f"blocks.{i}.conv", upsample=False)
        ours |= _image(theirs, f"to_rgbs.{i}", f"blocks.{i}.to_image")
    return ours


def _style(theirs: State, name: str, ours: str) -> State:
    return {
        f"{ours}.style.weight": theirs[f"{name}.modulation.weight"] / math.sqrt(LATENT_DIM),
        f"{ours}.style.bias": theirs[f"{name}.modulation.bias"],
    }


def _layer(theirs: State, name: str, ours: str, *, upsample: bool) -> State:
    weight = _equalised(theirs[f"{name}.conv.weight"])
    return _style(theirs, f"{name}.conv", ours) | {
        f"{ours}.weight": weight.transpose(0, 1).contiguous() if upsample else weight,
        f"{ours}.squares": weight.square().sum(dim=(2, 3)).T.contiguous() / GAIN**2,
        f"{ours}.noise_weight": theirs[f"{name}.noise.weight"].reshape(()) * GAIN,
        f"{ours}.bias": theirs[f"{name}.activate.bias"][:, None, None] * GAIN,
    }


def _image(theirs: State, name: str, ours: str) -> State:
    return _style(theirs, f"{name}.conv", ours) | {
        f"{ours}.weight": _equalised(theirs[f"{name}.conv.weight"])[:, :, 0, 0],
        f"{ours}.bias": theirs[f"{name}.bias"].reshape(3, 1),
    }


def _equalised(weight: Tensor) -> Tensor:
    """A convolution's weight [1, out, in, K, K], divided by √fan-in: [out, in, K, K]."""
    fan_in: Sequence[int] = weight.shape[2:]
    return weight[0] / math.sqrt(math.prod(fan_in))
