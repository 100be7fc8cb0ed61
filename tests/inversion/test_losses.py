"""Properties of the inversion losses that hold for any weights."""

import pytest
import torch

from voicestyle.errors import CheckpointError
from voicestyle.face_networks import IrSe50
from voicestyle.inversion import IdentityLoss, PerceptualLoss
from voicestyle.inversion.perceptual import STAGES


@pytest.fixture(scope="module")
def vgg():
    """Random weights under torchvision's names: a ReLU after each convolution, a pooling after each stage."""
    torch.manual_seed(0)
    weights, index, channels = {}, 0, 3
    for stage in STAGES:
        for width in stage:
            weights[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3) * (2 / channels / 9) ** 0.5
            weights[f"features.{index}.bias"] = torch.zeros(width)
            index, channels = index + 2, width
        index += 1
    return weights


def images(count, size):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_perceptual_loss_of_equal_images_is_zero(vgg):
    loss = PerceptualLoss(vgg, None)
    pictures = images(2, 32)
    assert loss(pictures, loss.features(pictures)).tolist() == [0, 0]
    assert (loss(pictures.flip(0), loss.features(pictures)) > 0).all()


def test_the_perceptual_loss_does_not_cross_items(vgg):
    loss = PerceptualLoss(vgg, None)
    pictures, targets = images(3, 32), images(3, 32).flip(0)
    alone = [loss(pictures[i : i + 1], loss.features(targets[i : i + 1])) for i in range(3)]
    torch.testing.assert_close(loss(pictures, loss.features(targets)), torch.cat(alone))


def test_weights_that_do_not_fit_are_named(vgg):
    short = {name: weight for name, weight in vgg.items() if name != "features.28.bias"}
    with pytest.raises(CheckpointError, match=r"VGG-16 must have features.28.bias with shape \[512\], got None"):
        PerceptualLoss(short, None)
    with pytest.raises(CheckpointError, match="the linear layers of LPIPS must have shapes"):
        PerceptualLoss(vgg, [torch.ones(1, 64, 1, 1)])
    with pytest.raises(CheckpointError, match="must be the state dict of an IR-SE50"):
        IrSe50.from_state_dict({})


def test_identity_needs_images_of_256_pixels():
    loss = IdentityLoss(IrSe50().eval())
    with pytest.raises(ValueError, match=r"images must be \[N, 3, 256, 256\], got \[1, 3, 224, 224\]"):
        loss.embed(images(1, 224))


def test_an_identity_file_is_read_back(tmp_path):
    torch.manual_seed(2)
    network = IrSe50().eval()
    torch.save(network.state_dict(), tmp_path / "model_ir_se50.pth")
    faces = images(1, 112)
    with torch.no_grad():
        torch.testing.assert_close(IrSe50.read(tmp_path / "model_ir_se50.pth")(faces), network(faces))
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"broken.pth must be a torch file of plain tensors"):
        IrSe50.read(tmp_path / "broken.pth")
