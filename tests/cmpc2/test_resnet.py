from __future__ import annotations

import dataclasses
import io

import pytest
import torch

from cmpc2 import CMPC, ResNet, ResNetConfig

TINY = ResNetConfig(widths=(4, 6, 8, 12), depths=(1, 2, 1, 2), embedding_dim=12)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Add noise to all parameters and statistics, so that none has a neutral value and all affect the output."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
                value.add_(noise.abs() if name.endswith("var") else 0.1 * noise)
    return module.eval()


def test_the_default_is_resnet_34():
    model = CMPC()
    # torchvision's ResNet-34 has 21,797,672 parameters, 513,000 of them in its classifier.
    assert count(model.face_subnet) == 21_797_672 - 513_000
    assert count(model.voice_subnet) == count(model.face_subnet) - 2 * 64 * 49


def test_weight_names_are_the_published_ones():
    keys = set(ResNet(3, TINY).state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer4.1.bn2.num_batches_tracked"} <= keys
    assert {key for key in keys if "downsample" in key and "weight" in key} == {
        f"layer{stage}.0.downsample.{part}.weight" for stage in (1, 2, 3, 4) for part in (0, 1)
    } - {f"layer1.0.downsample.{part}.weight" for part in (0, 1)}


@pytest.mark.parametrize(("height", "width"), [(64, 800), (64, 1651), (224, 224), (256, 256), (33, 65)])
def test_inputs_of_any_size_give_one_embedding(height, width):
    model = ResNet(1, TINY).eval()
    assert model(torch.zeros(2, 1, height, width)).shape == (2, 12)


def test_items_of_a_batch_are_independent():
    model = randomised(ResNet(3, TINY).double())
    images = torch.randn(5, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = model(images)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_a_smaller_embedding_averages_adjacent_channels():
    full = randomised(ResNet(1, TINY))
    small = ResNet(1, dataclasses.replace(TINY, embedding_dim=4)).eval()
    small.load_state_dict(full.state_dict())
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(small(x), full(x).reshape(2, 4, 3).mean(-1))


def test_scripting_keeps_values_and_gradients():
    model = randomised(ResNet(3, TINY).double())
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    results = []
    for encoder in (model, scripted, scripted, scripted):  # TorchScript specialises its graph in the first calls
        image = x.clone().requires_grad_()
        embedding = encoder(image)
        (gradient,) = torch.autograd.grad(embedding.square().sum(), image)
        results.append((embedding, gradient))
    for embedding, gradient in results[1:]:
        torch.testing.assert_close(embedding, results[0][0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-10, atol=1e-12)


def test_gradients_pass_gradcheck():
    model = randomised(ResNet(1, ResNetConfig((2, 2, 2, 2), (1, 1, 1, 1), 2)).double())
    x = torch.randn(1, 1, 33, 34, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(model, x.requires_grad_(), fast_mode=True)


def test_cmpc_encodes_voices_and_faces():
    model = CMPC(TINY, dataclasses.replace(TINY, depths=(1, 1, 1, 1))).eval()
    log_mel, images = torch.randn(2, 1, 64, 800), torch.randn(3, 3, 96, 96)
    voice, face = model(log_mel, images)
    assert (voice.shape, face.shape) == ((2, 12), (3, 12))
    torch.testing.assert_close(voice, model.encode_voice(log_mel))
    torch.testing.assert_close(face, model.encode_face(images))
    assert {key.split(".")[0] for key in model.state_dict()} == {"voice_subnet", "face_subnet"}


@pytest.mark.parametrize("shape", [(1, 64, 800), (1, 1, 80, 800), (1, 2, 64, 800)])
def test_log_mels_of_another_shape_are_rejected(shape):
    with pytest.raises(ValueError, match=r"log_mel must be \[N, 1, 64, T\]; received \["):
        CMPC(TINY, TINY).encode_voice(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64)])
def test_images_of_another_shape_are_rejected(shape):
    with pytest.raises(ValueError, match=r"images must be \[N, 3, H, W\]; received \["):
        CMPC(TINY, TINY).encode_face(torch.zeros(shape))


def test_encoders_must_share_one_embedding_dim():
    with pytest.raises(ValueError, match="share one embedding_dim; received voice 12, face 6"):
        CMPC(TINY, dataclasses.replace(TINY, embedding_dim=6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (64, 128)}, "widths must be 4 positive integers"),
        ({"widths": (64, 128, 256, 0)}, "widths must be 4 positive integers"),
        ({"depths": (3, 4, 6, 3.0)}, "depths must be 4 positive integers"),
        ({"depths": (True, 4, 6, 3)}, "depths must be 4 positive integers"),
        ({"embedding_dim": 513}, r"embedding_dim must be an integer in 1 … 512 .*received 513"),
        ({"embedding_dim": 0}, "received 0"),
        ({"embedding_dim": "512"}, "received 512"),
    ],
)
def test_invalid_configs_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        ResNetConfig(**options)


def test_a_config_accepts_lists_from_json():
    assert ResNetConfig(widths=[4, 6, 8, 12], depths=[1, 2, 1, 2], embedding_dim=12) == TINY  # pyright: ignore[reportArgumentType]
