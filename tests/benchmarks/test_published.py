"""The published loop computes what our engine computes: the comparison is one of speed alone."""

import pytest
import torch

from benchmarks import published_loop, published_networks, stand_in
from cmpc2 import ResNetConfig
from voicestyle.engine import Engine, encoder_input
from voicestyle.generators import StyleGAN2Config, read_stylegan2

CONFIG = StyleGAN2Config(size=64, max_width=12)
ENCODER = ResNetConfig(widths=(4, 4, 8, 8), depths=(1, 1, 1, 1), embedding_dim=8)
STEPS = 12


@pytest.fixture(scope="module")
def weights():
    return stand_in.stylegan2_weights(CONFIG)


@pytest.fixture(scope="module")
def ours(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "stylegan2.pt"
    torch.save({"g_ema": weights}, path)
    return read_stylegan2(path)[0]


@pytest.fixture(scope="module")
def draws():
    source = torch.Generator().manual_seed(5)
    maps = [4, 8, 8, 16, 16, 32, 32, 64, 64]
    return {
        "first_latent": torch.randn(1, 512, generator=source),
        "noise": [torch.randn(1, 1, size, size, generator=source) for size in maps],
        "latent_noise": torch.randn(STEPS, 512, generator=source),
        "log_mel": torch.randn(1, 1, 64, 100, generator=source),
    }


def test_the_same_image(weights, ours, draws):
    theirs = published_networks.StyleGAN2(weights)
    w = torch.randn(2, 512, generator=torch.Generator().manual_seed(6))
    noise = [level.expand(2, -1, -1, -1) for level in draws["noise"]]
    with torch.no_grad():
        assert torch.allclose(theirs.map(w), ours.map(w), atol=1e-4)
        torch.testing.assert_close(theirs(w, noise), ours(w, noise), rtol=0, atol=1e-4)


def test_the_same_steps(weights, ours, draws):
    encoders, frozen = stand_in.encoders(ENCODER), stand_in.encoders(ENCODER).requires_grad_(False)
    with torch.no_grad():
        voice = frozen.encode_voice(draws["log_mel"])[0]
    engine = Engine(ours, frozen.face_subnet, latent_std=9.0, embedding_dim=8, image_size=64)
    engine.add(
        "it",
        voice,
        draws["first_latent"][0],
        seed=0,
        steps=STEPS,
        noise=[level[0] for level in draws["noise"]],
        latent_noise=draws["latent_noise"],
    )
    theirs = published_networks.StyleGAN2(weights)
    loop = published_loop.PublishedLoop(theirs, encoders, latent_std=9.0, image_size=64, **draws)
    for _ in range(STEPS):
        loop.step()
    engine.step(STEPS)

    outcome = engine.outcome("it")
    assert loop.similarity == pytest.approx(outcome.similarity.tolist(), abs=1e-4)
    torch.testing.assert_close(loop.latent.detach(), outcome.latent, rtol=0, atol=1e-3)
    assert (loop.latent - draws["first_latent"]).abs().max() > 0.01
    for level, expected in zip(loop.noise, outcome.noise, strict=True):
        torch.testing.assert_close(level.detach(), expected, rtol=0, atol=5e-3)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder_input(theirs(loop.latent, loop.noise), 64, 64),
            encoder_input(ours(outcome.latent, outcome.noise), 64, 64),
            rtol=0,
            atol=1e-2,
        )


def test_nothing_is_frozen(weights, draws):
    theirs, encoders = published_networks.StyleGAN2(weights), stand_in.encoders(ENCODER)
    loop = published_loop.PublishedLoop(theirs, encoders, latent_std=9.0, image_size=64, **draws)
    loop.step()
    without = {name for name, value in theirs.named_parameters() if value.grad is None}
    assert {name.split(".")[0] for name in without} == {"mapping"}
    assert not [name for name, value in encoders.named_parameters() if value.grad is None]


def test_the_stand_in_is_sane(ours, draws):
    with torch.no_grad():
        w = ours.map(torch.randn(500, 512, generator=torch.Generator().manual_seed(7)))
        assert w.var(dim=0).sum().sqrt() == pytest.approx(stand_in.LATENT_STD, rel=0.02)
        image = ours(draws["first_latent"], draws["noise"])
        faces = stand_in.encoders(ENCODER).encode_face(torch.randn(8, 3, 64, 64))
    assert 0.1 < image.std() < 1
    assert 0.1 < faces.mean() < 10
