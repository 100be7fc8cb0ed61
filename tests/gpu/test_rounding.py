"""float32 means float32. GPUs may use TensorFloat-32 (TF32) instead, which has 10 bits of mantissa in place of 23."""

import copy

import pytest
import torch
import torch.nn.functional as F

from tests.support.joined_faces import difference
from tests.support.small_networks import SMALL
from voicestyle.precision import adapt_convolutions_

TF32 = "TF32 is on, or another form of float32 with fewer bits: see voicestyle/devices/preparation.py"
TOLERANCE = 1e-4  # of the norm; float32 differs by less than 1e-5, TF32 by more than 2e-4
SOURCE = torch.Generator().manual_seed(5)
LEFT, RIGHT = (torch.randn(512, 512, generator=SOURCE) for _ in range(2))
IMAGE, WEIGHT = torch.randn(2, 64, 32, 32, generator=SOURCE), torch.randn(64, 64, 3, 3, generator=SOURCE)


def as_tf32(values):
    """Float32 values rounded to the 10 bits of mantissa that a TF32 multiplication reads."""
    bits = values.contiguous().view(torch.int32)
    return ((bits + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


def test_matrix_products_are_float32(device):
    given = LEFT.to(device) @ RIGHT.to(device)
    assert difference(given, LEFT.double() @ RIGHT.double()) < 1e-5, TF32
    assert difference(as_tf32(LEFT) @ as_tf32(RIGHT), LEFT.double() @ RIGHT.double()) > 1e-4


def test_convolutions_are_float32(device):
    image, weight = (each.to(device, memory_format=torch.channels_last) for each in (IMAGE, WEIGHT))
    expected = F.conv2d(IMAGE.double(), WEIGHT.double(), padding=1)
    assert difference(F.conv2d(image, weight, padding=1), expected) < 5e-5, TF32  # Winograd's form rounds more
    assert difference(F.conv2d(as_tf32(IMAGE), as_tf32(WEIGHT), padding=1), expected) > 1e-4


@pytest.fixture(scope="module")
def generator():
    return SMALL.load().generator.requires_grad_(False)


def image_and_gradients(generator, device):
    source = torch.Generator().manual_seed(6)
    latent = torch.randn(2, 512, generator=source) * 14
    noise = [torch.randn(2, 1, *shape, generator=source) for shape in generator.noise_shapes]
    leaves = [each.to(device).requires_grad_() for each in (latent, *noise)]
    image = generator.to(device)(leaves[0], leaves[1:])
    names = ["image", "gradient to w", *(f"gradient to noise map {level}" for level in range(len(noise)))]
    return dict(zip(names, [image, *torch.autograd.grad(image.sin().sum(), leaves)], strict=True))


def test_a_generator_in_float32_equals_that_of_the_cpu(generator, device):
    here = copy.deepcopy(generator)
    adapt_convolutions_(here, torch.float32)
    given, expected = image_and_gradients(here, device), image_and_gradients(copy.deepcopy(generator), "cpu")
    assert expected["image"].std() > 0.1
    for name, values in given.items():
        # A gradient also turns where the input of a rectifier changes its sign.
        assert difference(values, expected[name]) < TOLERANCE * (1 if name == "image" else 10), f"{name}: {TF32}"


def test_tf32_would_exceed_the_tolerance(generator):
    """The weights alone are rounded, which is less than what TF32 does."""
    narrow = copy.deepcopy(generator)
    for module in narrow.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.dim() == 4:
                tensor.data = as_tf32(tensor.data)
    expected, given = image_and_gradients(copy.deepcopy(generator), "cpu"), image_and_gradients(narrow, "cpu")
    assert difference(given["image"], expected["image"]) > TOLERANCE
