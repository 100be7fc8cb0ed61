"""Load MobileStyleGAN's published weights from the OpenVINO IR graphs in the PyPI wheel `random-face`.

In the graphs, gains, styles and noise are separate operations. They are found by following the edges, and gains are
multiplied into the weights.
"""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cmpc2.errors import CheckpointError
from voicestyle.generators.latents import SLOPE
from voicestyle.generators.mobilestylegan import MobileStyleGAN, MobileStyleGANConfig
from voicestyle.generators.openvino_ir import Graph, Layer, read_graphs

WHEEL_NAME = "random_face-2021.7.21.1-py3-none-any.whl"
WHEEL_SHA256 = "e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5"
NETWORKS = ["random_face/data/MappingNetwork", "random_face/data/SynthesisNetwork"]
DEFAULT_HEAD = Path(__file__).parent.parent / "assets" / "demo" / "head.npz"

Array = NDArray[np.float32]
Weights = dict[str, Array]

PUBLISHED = MobileStyleGANConfig()
HAAR_GAIN = 0.5  # the graph uses the orthonormal transform; `inverse_haar` has twice its gain


def from_wheel(wheel: Path, head: Path | None = DEFAULT_HEAD) -> MobileStyleGAN:
    """Load the generator with the weights of the wheel and of the 256-pixel head, in eval mode, float32.

    wheel: the file `WHEEL_NAME`, checked against `WHEEL_SHA256`. head: an .npz that `voicestyle.training.head` wrote
    for this wheel, or None to set the head's weights to zero. Raises FileNotFoundError for a missing file and
    CheckpointError for a file with other content.
    """
    mapping, synthesis = read_graphs(wheel, NETWORKS, WHEEL_SHA256)
    generator = MobileStyleGAN(PUBLISHED)
    weights = mapping_weights(mapping) | synthesis_weights(synthesis)
    if head:
        weights |= read_head(head)
    else:
        weights |= {f"head.{name}": np.zeros(x.shape, np.float32) for name, x in generator.head.state_dict().items()}
    try:
        generator.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{wheel.name} must contain the weights of MobileStyleGAN: {error}") from error
    return generator.eval()


def read_head(path: Path) -> Weights:
    """Read the head's weights, by their names in the generator. Raises CheckpointError if fitted to another wheel."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    made_for = str(arrays.pop("wheel_sha256", "an unnamed wheel"))
    if made_for != WHEEL_SHA256:
        raise CheckpointError(f"{path.name} must be fitted to the wheel {WHEEL_SHA256}, got one for {made_for}")
    return {f"head.{name}": value.astype(np.float32) for name, value in arrays.items()}


def mapping_weights(graph: Graph) -> Weights:
    """Weights of the mapping network's linear layers, multiplied by the gains of the activations."""
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
    """Weights of the synthesis network, without the 256-pixel head."""
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
    """Weight, bias and noise map of a convolution. Only the bias has a name; the others are found from it."""
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
    """Weights of the last layer, which has neither noise nor activation."""
    add_bias = graph.fed_by(graph.named(f"{theirs}.bias"), "Add")
    weight = graph.constant(graph.feeding(add_bias, "Convolution"))
    bias = graph.named_constant(f"{theirs}.bias").reshape(-1)
    order = _subband_order(bias.size)
    return _gained_style(graph, theirs, "to_image.style") | {
        "to_image.conv.weight": HAAR_GAIN * weight[order],
        "to_image.conv.bias": HAAR_GAIN * bias[order],
    }


def _gained_style(graph: Graph, theirs: str, ours: str) -> Weights:
    """Weights of a convolution's style, multiplied by the constant gain that follows it."""
    weight, bias, style = _style(graph, f"{theirs}.conv.modulation")
    gain = graph.constant(graph.fed_by(style, "Multiply")).item()
    return {f"{ours}.weight": gain * weight, f"{ours}.bias": gain * bias}


def _haar_style(graph: Graph, theirs: str, ours: str) -> Weights:
    """Weights of an upsampling's style, multiplied by `HAAR_GAIN`."""
    weight, bias, _ = _style(graph, f"{theirs}.up.modulation")
    order = _subband_order(bias.size)
    return {f"{ours}.weight": HAAR_GAIN * weight[order], f"{ours}.bias": HAAR_GAIN * bias[order]}


def _style(graph: Graph, name: str) -> tuple[Array, Array, Layer]:
    """Weight and bias of an affine function of w, and the layer that reshapes its result for the multiplication."""
    add = graph.fed_by(graph.fed_by(graph.named(f"{name}.weight"), "MatMul"), "Add")
    weight, bias = graph.named_constant(f"{name}.weight"), graph.constant(add).reshape(-1)
    return weight, bias, graph.fed_by(add, "Reshape")


def _subband_order(channels: int) -> NDArray[np.int64]:
    """Index of the published channel for each of ours: published details are grouped by channel, ours by subband."""
    count = channels // 4
    details = count + np.arange(3 * count).reshape(count, 3).T.reshape(-1)
    return np.concatenate([np.arange(count), details])


def _check_slope(graph: Graph, activation: Layer) -> None:
    slope = graph.constant(activation).item()
    if not math.isclose(slope, SLOPE, rel_tol=1e-6):
        raise CheckpointError(f"{graph.name}: {activation.name} must have slope {SLOPE}, got {slope}")
