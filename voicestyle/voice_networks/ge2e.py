"""GE2E: the speaker-verification network of "Generalized End-to-End Loss for Speaker Verification" (arXiv 1710.10467).

The weights are those of the PyPI package Resemblyzer 0.1.4 (Apache-2.0). Only its file of weights is used.
"""

import hashlib
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from cmpc2.checkpoint import check_weights, read_state_dict
from voicestyle.errors import CheckpointError
from voicestyle.voice_networks.ge2e_front_end import BANDS, WINDOW_FRAMES, WINDOW_STEP
from voicestyle.wheels import fetch_wheel

HIDDEN: Final = 256
LAYERS: Final = 3
EMBEDDING_DIM: Final = 256
WHEEL_REQUIREMENT: Final = "Resemblyzer==0.1.4"
WHEEL_NAME: Final = "Resemblyzer-0.1.4-py3-none-any.whl"
WHEEL_SHA256: Final = "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f"
WEIGHTS: Final = "resemblyzer/pretrained.pt"
WEIGHTS_SHA256: Final = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
# Scale and offset of the cosines in the loss: training alone needs them.
OF_THE_LOSS: Final = ("similarity_weight", "similarity_bias")


class Ge2e(nn.Module):
    """Unit vectors [N, 256] without negative values, of features that `Ge2eFrontEnd` makes. Scriptable, float32.

    An item's vector is the mean of its windows' vectors, scaled to length 1. It does not depend on the rest of the
    batch, up to float32 rounding.
    """

    # TorchScript sees constants of the class, none of the module.
    bands: Final[int] = BANDS
    frames: Final[int] = WINDOW_FRAMES
    step: Final[int] = WINDOW_STEP

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, HIDDEN, LAYERS, batch_first=True)
        self.linear = nn.Linear(HIDDEN, EMBEDDING_DIM)

    def forward(self, features: Tensor) -> Tensor:
        """Mel power spectra [N, 1, 40, T], T ≥ 160, to unit vectors [N, 256].

        Frames after the last whole window do not count; `Ge2eFrontEnd` makes whole windows. Raises ValueError for
        another shape.
        """
        shape = features.size()
        if len(shape) != 4 or shape[1] != 1 or shape[2] != self.bands or shape[3] < self.frames:
            raise ValueError(f"features must be [N, 1, 40, T], T ≥ 160; received {list(shape)}")
        windows = features[:, 0].unfold(2, self.frames, self.step).permute(0, 2, 3, 1)  # [N, P, 160, 40]
        _, (hidden, _) = self.lstm(windows.flatten(0, 1))
        vectors = F.normalize(F.relu(self.linear(hidden[-1])), dim=1)
        return F.normalize(vectors.unflatten(0, [windows.size(0), windows.size(1)]).mean(dim=1), dim=1)


def fetch_ge2e(cache: Path) -> Ge2e:
    """`read_ge2e` of the wheel in `cache`, which pip downloads where it is missing (16 MB). Nothing of it is executed.

    Raises CheckpointError if pip cannot get the wheel, or for a wheel with other contents; OSError.
    """
    return read_ge2e(fetch_ge2e_wheel(cache))


def fetch_ge2e_wheel(folder: Path) -> Path:
    """The wheel in `folder`, downloaded where it is missing. Raises CheckpointError if pip cannot get it, OSError."""
    return fetch_wheel(WHEEL_REQUIREMENT, WHEEL_NAME, WHEEL_SHA256, folder)


def read_ge2e(wheel: Path) -> Ge2e:
    """The network with the weights in Resemblyzer's wheel, frozen, in evaluation mode, on the CPU.

    Raises CheckpointError for a file that is no such wheel or has other weights, FileNotFoundError.
    """
    try:
        with zipfile.ZipFile(wheel) as members:
            content = members.read(WEIGHTS)
    except KeyError:
        raise CheckpointError(f"{wheel} must contain {WEIGHTS}, which is missing") from None
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise CheckpointError(f"{wheel} must be the wheel of {WHEEL_REQUIREMENT}: {error}") from None
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != WEIGHTS_SHA256:
        raise CheckpointError(f"{WEIGHTS} in {wheel} must have the SHA-256 {WEIGHTS_SHA256}, got {sha256}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(WEIGHTS).name)
        path.write_bytes(content)
        given = read_state_dict(path, "model_state")
    weights = {name: value for name, value in given.items() if name not in OF_THE_LOSS}
    network = Ge2e()
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    check_weights(WEIGHTS, weights, shapes, "must contain exactly the weights of GE2E")
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)
