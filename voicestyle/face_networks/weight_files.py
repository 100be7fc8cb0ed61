"""Weight files of the perceptual loss: torchvision's VGG-16, and the linear layers of LPIPS in the `lpips` wheel."""

import hashlib
import tempfile
import zipfile
from pathlib import Path

from torch import Tensor

from cmpc2.checkpoint import check_weights, read_checkpoint
from voicestyle.errors import CheckpointError
from voicestyle.face_networks.network import check_tensors
from voicestyle.face_networks.npm_package import DEFAULT_CACHE
from voicestyle.wheels import fetch_wheel

LPIPS_WIDTHS = (64, 128, 256, 512, 512)  # channels of the five stages of VGG-16
LPIPS_REQUIREMENT = "lpips==0.1.4"
LPIPS_WHEEL = "lpips-0.1.4-py3-none-any.whl"
LPIPS_WHEEL_SHA256 = "fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e"
LPIPS_IN_CACHE = Path("lpips-0.1.4/vgg.pth")
LPIPS_MEMBER = "lpips/weights/v0.1/vgg.pth"
LPIPS_SHA256 = "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"


def read_vgg16(path: Path) -> dict[str, Tensor]:
    """The convolutions of torchvision's VGG-16 state dict, by name: `features.N.weight` and `features.N.bias`.

    The classifier, nine tenths of the file, is left out. Raises CheckpointError, OSError.
    """
    weights = read_checkpoint(path)
    features = {name: value for name, value in weights.items() if str(name).startswith("features.")}
    check_tensors(str(path), features)
    if not features:
        raise CheckpointError(
            f"{path} must be torchvision's state dict of VGG-16, with weights named features.N.weight"
        )
    return features


def read_lpips_linear(path: Path) -> list[Tensor]:
    """The weights [1, C, 1, 1] of LPIPS' five linear layers for VGG-16. Raises CheckpointError, OSError.

    path: the file `lpips/weights/v0.1/vgg.pth` of the wheel. The layers were fitted to torchvision's VGG-16.
    """
    weights = read_checkpoint(path)
    check_tensors(str(path), weights)
    shapes = {f"lin{number}.model.1.weight": (1, width, 1, 1) for number, width in enumerate(LPIPS_WIDTHS)}
    check_weights(path, weights, shapes, "must contain the linear layers of LPIPS for VGG-16")
    return [weights[name] for name in shapes]


def fetch_lpips_linear(cache: Path = DEFAULT_CACHE) -> list[Tensor]:
    """`read_lpips_linear` of the wheel's file, which is kept in `cache`. pip downloads the wheel where it is missing.

    Nothing of the wheel is installed or executed. Raises CheckpointError with pip's error if that fails.
    """
    path = cache / LPIPS_IN_CACHE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != LPIPS_SHA256:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pip-") as folder:
            draft = Path(folder) / path.name
            wheel = fetch_wheel(LPIPS_REQUIREMENT, LPIPS_WHEEL, LPIPS_WHEEL_SHA256, Path(folder))
            with zipfile.ZipFile(wheel) as members:
                draft.write_bytes(members.read(LPIPS_MEMBER))
            draft.replace(path)
    return read_lpips_linear(path)
