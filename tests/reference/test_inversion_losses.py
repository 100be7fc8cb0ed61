"""The two losses of the published inversion, in float64, with their gradients."""

import numpy as np
import pytest
import torch

from voicestyle.face_networks import IrSe50
from voicestyle.inversion import IdentityTerm, PerceptualTerm

WIDTHS = (64, 128, 256, 512, 512)


@pytest.fixture(scope="module")
def expected(reference):
    return lambda key: torch.from_numpy(reference.array("inversion_losses", key)).double()


@pytest.fixture(scope="module")
def images(reference):
    def draw(key):
        values = np.clip(0.5 * reference.normal((2, 3, 256, 256), key), -1, 1)
        return torch.from_numpy(values).double()

    return draw("target"), draw("other")


def linear_layers(reference):
    """LPIPS' linear layers in the vectors."""
    draws = [reference.normal((1, width, 1, 1), f"lin{i}") for i, width in enumerate(WIDTHS)]
    return [torch.from_numpy(0.1 * np.abs(draw)) for draw in draws]


def assert_close(found, expected):
    assert (found - expected).norm() < 1e-6 * expected.norm()


def assert_gradient(found, reference, name):
    with np.load(reference.vectors / "inversion_losses.npz") as arrays:
        pooled = torch.nn.functional.adaptive_avg_pool2d(found, 8)
        assert_close(pooled, torch.from_numpy(arrays[f"{name}_grad_8x8"]).double())
        assert_close(found.flatten(1).norm(dim=1), torch.from_numpy(arrays[f"{name}_grad_norm"]).double())


@pytest.mark.long
def test_lpips_and_its_gradient(reference, images, expected):
    loss = PerceptualTerm(reference.state_dict("vgg16"), linear_layers(reference)).double()
    target, other = images[0], images[1].clone().requires_grad_()
    distance = loss(other, loss.target(target))
    assert_close(distance.detach(), expected("lpips"))
    (gradient,) = torch.autograd.grad(distance.sum(), other)
    assert_gradient(gradient, reference, "lpips")


def test_identity_and_its_gradient(reference, images, expected):
    loss = IdentityTerm(IrSe50.from_state_dict(reference.state_dict("ir_se50")).double())
    target, other = images[0], images[1].clone().requires_grad_()
    assert_close(loss.target(other)[0].detach(), expected("identity"))
    distance = loss(other, loss.target(target))
    assert_close(distance.detach(), expected("identity_loss"))
    (gradient,) = torch.autograd.grad(distance.sum(), other)
    assert_gradient(gradient, reference, "identity")
