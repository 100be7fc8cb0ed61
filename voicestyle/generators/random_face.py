"""MobileStyleGAN's published weights: from the graphs in the PyPI wheel `random-face` to our module.

The wheel carries OpenVINO IR. Its graphs compute on arrays of a fixed layout and hold gains, styles and noise as
separate operations; here they are found by walking the edges, and what can be folded into weights is folded.
"""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cmpc2.errors import CheckpointError
from voicestyle.generators.mobilestylegan import SLOPE, MobileStyleGAN, MobileStyleGANConfig
from voicestyle.generators.openvino_ir import Graph, Layer, read_graphs

WHEEL_NAME = "random_face-2021.7.21.1-py3-none-any.whl"
WHEEL_SHA256 = "e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5"
NETWORKS = ["random_face/data/MappingNetwork", "random_face/data/SynthesisNetwork"]
DEFAULT_HEAD = Path(__file__).parent.parent / "assets" / "demo" / "head.npz"

Array = NDArray[np.float32]
Weights = dict[str, Array]

PUBLISHED = MobileStyleGANConfig()
HAAR_GAIN = 0.5  # `inverse_haar` is twice the orthonormal transform that the graph computes


def from_wheel(wheel: Path, head: Path | None = DEFAULT_HEAD) -> MobileStyleGAN:
    """The generator with the weights of the wheel and of the 256-pixel head, in eval mode, float32.

    wheel: the file `WHEEL_NAME`, checked against `WHEEL_SHA256`. head: an .npz that `voicestyle.training.head`
    wrote for this wheel, or None for a head of zeros. Raises FileNotFoundError when one of them is missing and
    CheckpointError when one is not what it should be.
    """
    mapping, synthesis = read_graphs(wheel, NETWORKS, WHEEL_SHA256)
    generator = MobileStyleGAN(PUBLISHED)
    weights = mapping_weights(mapping) | synthesis_weights(synthesis)
    weights |= (
        read_head(head)
        if head
        else {
            name: np.zeros(value.shape, np.float32)
            for name, value in generator.state_dict().items()
            if name.startswith("head.")
        }
    )
    try:
        generator.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{wheel.name} does not fit MobileStyleGAN: {error}") from error
    return generator.eval()


def read_head(path: Path) -> Weights:
    """The head's weights by the generator's names. Raises CheckpointError when they are for another wheel."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    made_for = str(arrays.pop("wheel_sha256", "an unnamed wheel"))
    if made_for != WHEEL_SHA256:
        raise CheckpointError(f"{path.name} must be fitted to the wheel {WHEEL_SHA256}, got one for {made_for}")
    return {f"head.{name}": value.astype(np.float32) for name, value in arrays.items()}


def mapping_weights(graph: Graph) -> Weights:
    """The mapping network's linear layers, each with its activation's gain."""
    weights: Weights = {}
    for i, matmul in enumerate(layer for layer in graph.layers.values() if layer.kind == "MatMul"):
        add = graph.fed_by(matmul, "Add")
        activation = graph.fed_by(add, "PReLU")
        _check_slope(graph, activation)
        gain = graph.constant(graph.fed_by(activation, "Multiply")).item()
        weights[f"mapping.layers.{i}.weight"] = gain * graph.constant(matmul)
        weights[f"mapping.layers.{i}.bias"] = gain * graph.constant(graph.feeding(add, "Reshape"))
    return weights


def synthesis_weights(graph: Graph) -> Weights:
    """The synthesis network, without the 256-pixel head."""
    weights: Weights = {"input": graph.named_constant("m.input.input")}
    weights |= _gained_style(graph, "m.conv1", "style")
    weights |= _convolution(graph, "m.conv1", "conv", "activation", before_haar=True)
    count, head_blocks = len(PUBLISHED.widths), PUBLISHED.head_blocks
    for i in range(count):
        theirs = f"m.layers.{i}"
        ours = f"blocks.{i}" if i < head_blocks else f"render_blocks.{i - head_blocks}"
        weights |= _haar_style(graph, theirs, f"{ours}.style_up")
        for conv in ("conv1", "conv2"):
            name = f"{ours}.{conv}"
            before_haar = conv == "conv2" and i + 1 < count
            weights |= _gained_style(graph, f"{theirs}.{conv}", f"{ours}.style{conv[-1]}")
            weights |= _convolution(
                graph, f"{theirs}.{conv}", f"{name}.pointwise", f"{name}.activation", before_haar=before_haar
            )
            depthwise = graph.named_constant(f"{theirs}.{conv}.conv.weight_dw")
            weights[f"{name}.depthwise.weight"] = depthwise.reshape(-1, 1, 3, 3)
    return weights | _to_image(graph, f"m.layers.{count - 1}.to_img")


def _convolution(graph: Graph, theirs: str, ours: str, activation: str, *, before_haar: bool) -> Weights:
    """A convolution's weight, bias and noise map, found from its bias, the only one of them with a name."""
    add_bias = graph.fed_by(graph.named(f"{theirs}.bias"), "Add")
    add_noise = graph.feeding(add_bias, "Add")
    weight = graph.constant(graph.feeding(add_noise, "Convolution"))
    bias = graph.named_constant(f"{theirs}.bias").reshape(-1)
    _check_slope(graph, graph.fed_by(add_bias, "PReLU"))
    order = _subband_order(bias.size) if before_haar else np.arange(bias.size)
    return {
        f"{ours}.weight": weight[order],
        f"{ours}.bias": bias[order],
        f"{activation}.noise": graph.constant(add_noise),
    }


def _to_image(graph: Graph, theirs: str) -> Weights:
    """The last layer, which has neither noise nor activation."""
    add_bias = graph.fed_by(graph.named(f"{theirs}.bias"), "Add")
    weight = graph.constant(graph.feeding(add_bias, "Convolution"))
    bias = graph.named_constant(f"{theirs}.bias").reshape(-1)
    order = _subband_order(bias.size)
    return _gained_style(graph, theirs, "to_image.style") | {
        "to_image.conv.weight": HAAR_GAIN * weight[order],
        "to_image.conv.bias": HAAR_GAIN * bias[order],
    }


def _gained_style(graph: Graph, theirs: str, ours: str) -> Weights:
    """The style of a convolution; the constant factor after it (its weights' scale) becomes part of it."""
    weight, bias, style = _style(graph, f"{theirs}.conv.modulation")
    gain = graph.constant(graph.fed_by(style, "Multiply")).item()
    return {f"{ours}.weight": gain * weight, f"{ours}.bias": gain * bias}


def _haar_style(graph: Graph, theirs: str, ours: str) -> Weights:
    """The style of an upsampling, with the gain that `inverse_haar` leaves out."""
    weight, bias, _ = _style(graph, f"{theirs}.up.modulation")
    order = _subband_order(bias.size)
    return {f"{ours}.weight": HAAR_GAIN * weight[order], f"{ours}.bias": HAAR_GAIN * bias[order]}


def _style(graph: Graph, name: str) -> tuple[Array, Array, Layer]:
    """An affine function of w: its weight, its bias, and its result as it is multiplied to the features."""
    add = graph.fed_by(graph.fed_by(graph.named(f"{name}.weight"), "MatMul"), "Add")
    weight, bias = graph.named_constant(f"{name}.weight"), graph.constant(add).reshape(-1)
    return weight, bias, graph.fed_by(add, "Reshape")


def _subband_order(channels: int) -> NDArray[np.int64]:
    """Their channel for each of ours: they keep the three details of a channel together, we each subband."""
    count = channels // 4
    details = count + np.arange(3 * count).reshape(count, 3).T.reshape(-1)
    return np.concatenate([np.arange(count), details])


def _check_slope(graph: Graph, activation: Layer) -> None:
    slope = graph.constant(activation).item()
    if not math.isclose(slope, SLOPE, rel_tol=1e-6):
        raise CheckpointError(f"{graph.name}: {activation.name} must have slope {SLOPE}, got {slope}")
