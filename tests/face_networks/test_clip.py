"""CLIP's image tower, on deterministic weights, against open_clip's.

open_clip's wheel is fetched, and only its module with the transformer is imported: the package as a whole needs
torchvision, which has no build for a CPU-only torch here. What that module imports of torchvision it does not use.
"""

import subprocess
import sys
import zipfile
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from voicestyle.errors import CheckpointError
from voicestyle.face_networks import ClipImageEncoder
from voicestyle.face_networks.clip import MEAN, STD, ClipConfig

WHEEL = "open_clip_torch-3.3.0-py3-none-any.whl"
SHA256 = "c549ad5ed6bfc119cc11105033c0a2b9d7a2a4afeb40a58a09aab3da1a0043ce"


@pytest.fixture(scope="module")
def open_clip(cache):
    """The module open_clip.transformer."""
    folder = cache / "open_clip"
    if not (folder / WHEEL).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        requirement = folder / "requirement.txt"
        requirement.write_text(f"open_clip_torch==3.3.0 --hash=sha256:{SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--require-hashes"]
        subprocess.run([*command, "--dest", str(folder), "-r", str(requirement)], check=True)
    with zipfile.ZipFile(folder / WHEEL) as wheel:
        wheel.extractall(folder / "wheel")
    package = ModuleType("open_clip")
    package.__path__ = [str(folder / "wheel" / "open_clip")]
    stubs = {name: ModuleType(name) for name in ("torchvision", "torchvision.ops", "torchvision.ops.misc")}
    stubs["torchvision.ops.misc"].FrozenBatchNorm2d = torch.nn.BatchNorm2d
    with pytest.MonkeyPatch.context() as patch:
        for name, module in {"open_clip": package, **stubs}.items():
            patch.setitem(sys.modules, name, module)
        yield import_module("open_clip.transformer")


def deterministic(shapes):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}


def weights_of(config):
    return deterministic({name: value.shape for name, value in ClipImageEncoder(config).state_dict().items()})


def prefixed(weights):
    return {f"visual.{name}": value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("config", "dtype", "tolerance"),
    [
        pytest.param(ClipConfig(), torch.float32, 1e-5, id="ViT-B/32", marks=pytest.mark.long),
        (ClipConfig(image_size=64, patch=16, width=128, layers=3, embedding_dim=32), torch.float64, 1e-12),
    ],
)
def test_features_and_gradients_are_those_of_open_clip(open_clip, config, dtype, tolerance):
    theirs = open_clip.VisionTransformer(
        config.image_size,
        config.patch,
        config.width,
        config.layers,
        config.width // 64,
        4.0,
        output_dim=config.embedding_dim,
        act_layer=open_clip.QuickGELU,
        norm_layer=open_clip.LayerNorm,
    )
    weights = weights_of(config)
    theirs.load_state_dict(weights)
    theirs = theirs.eval().to(dtype)
    ours = ClipImageEncoder.from_state_dict(prefixed(weights)).to(dtype)
    assert ours.config == config
    size = config.image_size
    image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype) * 2 - 1
    mean, std = (torch.tensor(values).view(3, 1, 1).to(dtype) for values in (MEAN, STD))
    results = []
    for network in (ours, lambda x: theirs(((x + 1) / 2 - mean) / std)):
        leaf = image.clone().requires_grad_()
        features = network(leaf)
        (gradient,) = torch.autograd.grad(features.square().sum(), leaf)
        results.append((features.detach(), gradient))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize(("width", "height"), [(640, 360), (300, 500), (224, 224), (100, 90), (1000, 2)])
def test_pictures_keep_their_aspect_ratio_and_lose_their_edges(width, height):
    encoder = ClipImageEncoder(ClipConfig(layers=1))
    across = np.linspace(0, 255, width).astype(np.uint8)
    pixels = np.broadcast_to(across[None, :, None], (height, width, 3))
    prepared = encoder.prepare(np.ascontiguousarray(pixels))
    assert prepared.shape == (3, 224, 224)
    assert prepared.dtype == torch.float32
    lost = max(0, 1 - height / width) / 2  # on the left, as a part of the width
    expected = (lost + (torch.arange(224) + 0.5) / 224 * (1 - 2 * lost)) * 2 - 1
    assert (prepared[0, 112] - expected).abs().max() < 0.02


def test_small_pictures_are_resized_like_pil():
    encoder = ClipImageEncoder(ClipConfig(layers=1))
    pixels = np.random.default_rng(0).integers(64, 192, (256, 256, 3), np.uint8)
    resized = np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC))
    image = torch.from_numpy(pixels / 127.5 - 1).float().permute(2, 0, 1)[None]
    found = ((encoder.crop(image)[0].permute(1, 2, 0) + 1) * 127.5).numpy()
    assert abs(found - resized).max() < 1.5  # PIL rounds after each of the two directions


@pytest.fixture
def small():
    return weights_of(ClipConfig(image_size=64, patch=32, width=64, layers=2, embedding_dim=16))


class Tree(torch.nn.Module):
    """Parameters by their dotted names, and a `forward` that can be traced."""

    def __init__(self, weights):
        super().__init__()
        for name, value in weights.items():
            *parents, last = name.split(".")
            module = self
            for parent in parents:
                if parent not in module._modules:
                    module.add_module(parent, torch.nn.Module())
                module = module._modules[parent]
            module.register_parameter(last, torch.nn.Parameter(value))

    def forward(self, images):
        return images * self.logit_scale


def test_a_torchscript_file_and_a_state_dict_are_the_same(small, tmp_path):
    half = {name: value.half() for name, value in prefixed(small).items()} | {"logit_scale": torch.ones(())}
    torch.jit.trace(Tree(half), torch.rand(1, 3)).save(tmp_path / "ViT-small.pt")
    torch.save(half, tmp_path / "plain.pt")
    image = torch.rand(1, 3, 64, 64)
    features = [ClipImageEncoder.read(tmp_path / name)(image) for name in ("ViT-small.pt", "plain.pt")]
    assert torch.equal(*features)
    assert features[0].dtype == torch.float32
    assert ClipImageEncoder.read(tmp_path / "plain.pt").name == "CLIP ViT, width 64, patch 32 (plain.pt)"


def test_weights_that_do_not_fit_are_named(small, tmp_path):
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="other.pt must be a CLIP checkpoint with a vision transformer"):
        ClipImageEncoder.read(tmp_path / "other.pt")
    missing = {name: value for name, value in small.items() if name != "ln_post.bias"}
    with pytest.raises(CheckpointError, match="must contain exactly the image tower .* missing: ln_post.bias"):
        ClipImageEncoder.from_state_dict(prefixed(missing))
    with pytest.raises(CheckpointError, match="must be a multiple of the patch"):
        ClipImageEncoder.from_state_dict(prefixed({**small, "conv1.weight": torch.zeros(80, 3, 32, 32)}))
    with pytest.raises(CheckpointError, match="must be at least 1"):
        ClipImageEncoder.from_state_dict(prefixed({**small, "positional_embedding": torch.zeros(1, 64)}))
