"""What holds for every face network: shapes, independence of the batch, gradients, frozen weights, errors."""

import copy

import numpy as np
import pytest
import torch

from voicestyle.errors import CheckpointError
from voicestyle.face_networks import ClipImageEncoder, DlibResNet, IrSe50, MobileFace
from voicestyle.face_networks.clip import ClipConfig
from voicestyle.face_networks.dlib_resnet import CROP, _add

NAMES = ("dlib_resnet", "mobileface", "clip", pytest.param("ir_se50", marks=pytest.mark.long))


def filled(network):
    """The network with random weights that keep activations at the size of the input."""
    generator = torch.Generator().manual_seed(4)
    weights = {
        name: torch.rand(value.shape, generator=generator) + 0.5
        if value.dim() == 1
        else torch.randn(value.shape, generator=generator) * value[0].numel() ** -0.5
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    return type(network).from_state_dict(weights if isinstance(network, IrSe50) else prefixed(weights), "random")


def prefixed(weights):
    return {f"visual.{name}": value for name, value in weights.items()}


@pytest.fixture(scope="module")
def networks(dlib_resnet, mobileface):
    clip = ClipImageEncoder(ClipConfig(image_size=64, patch=16, width=128, layers=2, embedding_dim=32))
    return {"dlib_resnet": dlib_resnet, "mobileface": mobileface, "clip": filled(clip), "ir_se50": filled(IrSe50())}


@pytest.fixture(params=NAMES)
def network(request, networks):
    return networks[request.param]


def test_embeddings_are_unit_vectors_of_the_stated_size(network, images):
    embeddings = network.embed(images)
    assert embeddings.shape == (3, network.embedding_dim)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    assert network.name


def test_an_embedding_does_not_depend_on_the_batch(network, images):
    together = network.embed(images)
    alone = torch.cat([network.embed(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)
    mixed = torch.stack([images[0], torch.full_like(images[0], torch.nan)])
    torch.testing.assert_close(network.embed(mixed)[:1], alone[:1], rtol=0, atol=2e-5)


def test_the_network_is_frozen_and_in_evaluation_mode(network):
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("name", NAMES[:3])
def test_bfloat16_gives_nearly_the_same(networks, name, images):
    rounded = copy.deepcopy(networks[name]).bfloat16().embed(images.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert ((rounded.float() * networks[name].embed(images)).sum(dim=1) > 0.99).all()


@pytest.mark.parametrize("name", NAMES[:3])  # tests/reference has the gradient of an IR-SE50
def test_the_gradient_is_that_of_finite_differences(networks, name, images):
    double = copy.deepcopy(networks[name]).double()
    target = double.embed(images[1:2].double())
    image = images[:1].double().requires_grad_()
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(image.shape, generator=generator, dtype=torch.float64)

    def similarity(shift):
        return (double.embed(image + shift * direction) * target).sum()

    (gradient,) = torch.autograd.grad(similarity(0), image)
    step = 1e-6
    with torch.no_grad():
        difference = (similarity(step) - similarity(-step)) / (2 * step)
    # Kinks of ReLU and max pooling between the two points leave a small error.
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=2e-3, atol=1e-7)
    assert gradient.abs().sum() > 0


def test_pixels_are_prepared_as_embed_sees_them(network, astronaut, images):
    prepared = torch.nn.functional.normalize(network(network.prepare(astronaut)[None]))
    # PIL resizes bytes, torch floats.
    torch.testing.assert_close(prepared, network.embed(images[:1]), rtol=0, atol=1e-2 if network.name[0] == "C" else 0)


def test_other_shapes_are_rejected(network, networks):
    with pytest.raises(ValueError, match=r"images must be \[N, 3, 256, 256\], got \[1, 3, 224, 224\]"):
        network.embed(torch.zeros(1, 3, 224, 224))
    if network.needs_alignment:
        with pytest.raises(ValueError, match=r"aligned faces must be \[256, 256, 3\], got \[224, 256, 3\]"):
            network.prepare(np.zeros((224, 256, 3), np.uint8))


def test_a_face_resembles_its_mirror_image_and_not_noise(networks, images):
    for name, same, other in (("dlib_resnet", 0.98, 0.87), ("mobileface", 0.85, 0.1)):
        face, mirrored, noise = networks[name].embed(images)
        assert face @ mirrored > same > other > face @ noise


def test_the_resnet_agrees_with_dlib(dlib_resnet, dlib_descriptor, images):
    """Differences come from the 8 bits of the weights."""
    faces = torch.nn.functional.interpolate(images[:, :, CROP[0], CROP[1]], (150, 150), mode="bilinear")
    pixels = ((faces + 1) * 127.5).round().byte()
    descriptors = dlib_resnet(pixels / 127.5 - 1).numpy()
    for ours, picture in zip(descriptors, pixels, strict=True):
        theirs = dlib_descriptor(picture.permute(1, 2, 0).numpy())
        assert abs(ours - theirs).max() < 0.015
        assert np.linalg.norm(ours - theirs) < 0.05 < 0.6  # dlib's threshold for two pictures of one person
        assert ours @ theirs > 0.999 * np.linalg.norm(ours) * np.linalg.norm(theirs)


def test_tensors_of_different_shapes_are_added_as_dlib_does():
    total = _add(torch.ones(1, 2, 3, 1), torch.ones(1, 1, 2, 2))
    assert total.tolist() == [[[[2, 1], [2, 1], [1, 0]], [[1, 0], [1, 0], [1, 0]]]]


def test_mobileface_agrees_with_tensorflow_js(mobileface):
    """The first values that TensorFlow.js 4.22.0 computed, by its CPU backend, from the same file and input."""
    pixels = (torch.arange(112 * 112 * 3) * 7919 % 256).view(1, 112, 112, 3).permute(0, 3, 1, 2)
    embedding = mobileface(pixels / 127.5 - 1)[0]
    expected = torch.tensor([7.52463, -2.2481, -6.96938, -1.69199, -0.5167, -4.66142])
    torch.testing.assert_close(embedding[: len(expected)], expected, rtol=0, atol=5e-5)
    assert float(embedding.norm()) == pytest.approx(89.2969, abs=1e-3)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (DlibResNet, "face-api@1.7.15 must contain the weights of dlib's face-recognition ResNet: 'conv32_down"),
        (MobileFace, "human-models@3.0.4 must contain the weights of MobileFace: 'conv1_weight' is missing"),
    ],
)
def test_missing_weights_are_named(network, message):
    with pytest.raises(CheckpointError, match=message):
        network.from_weights({})
