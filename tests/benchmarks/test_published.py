"""The published loop and networks compute what this project's engine and generator compute."""

import copy
from dataclasses import asdict

import pytest
import torch

from benchmarks.networks import LATENT_STD, NETWORKS, stylegan2_weights, synthetic_encoders
from benchmarks.published_loop import published_loop, voice_distance
from benchmarks.published_stylegan2 import StyleGAN2
from voicestyle.engine import Engine, Schedule, VoiceObjective, encoder_input
from voicestyle.generators import read_stylegan2

CONFIG, ENCODER = NETWORKS["tiny"].generator, NETWORKS["tiny"].encoder
STEPS = 12
OTHER = Schedule(base_lr=0.02, ramp_up=0.2, ramp_down=0.5, noise=0.02, noise_ramp=0.4, betas=(0.5, 0.9), eps=1e-6)


@pytest.fixture(scope="module")
def weights():
    return stylegan2_weights(CONFIG)


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
        "first_noise": [torch.randn(1, 1, size, size, generator=source) for size in maps],
        "latent_noise": torch.randn(STEPS, 512, generator=source),
        "voice": torch.randn(1, 1, 64, 100, generator=source),
    }


def test_images_equal_the_published_form(weights, ours, draws):
    published = StyleGAN2(weights)
    w = torch.randn(2, 512, generator=torch.Generator().manual_seed(6))
    noise = [level.expand(2, -1, -1, -1) for level in draws["first_noise"]]
    with torch.no_grad():
        torch.testing.assert_close(published(w, noise), ours(w, noise), rtol=0, atol=1e-4)


@pytest.mark.parametrize("schedule", [Schedule(), OTHER], ids=["published", "other"])
def test_steps_equal_the_published_loop(weights, ours, draws, schedule):
    # In float64: a rounding error of float32 grows with every step.
    encoders, frozen = (synthetic_encoders(ENCODER).double() for _ in range(2))
    frozen.requires_grad_(False)
    ours = copy.deepcopy(ours).double()
    draws = {
        name: [level.double() for level in value] if isinstance(value, list) else value.double()
        for name, value in draws.items()
    }
    with torch.no_grad():
        voice = frozen.encode_voice(draws["voice"])[0]
    engine = Engine(
        ours,
        VoiceObjective(frozen.face_subnet, embedding_dim=8, image_size=64),
        latent_std=9.0,
        schedule=schedule,
        dtype=torch.float64,
    )
    engine.add(
        "face",
        [voice],
        draws["first_latent"][0],
        seed=0,
        steps=STEPS,
        noise=[level[0] for level in draws["first_noise"]],
        latent_noise=draws["latent_noise"],
    )
    for _ in range(STEPS):
        engine.step()
    generator = StyleGAN2(weights).double()
    distance = voice_distance(encoders.encode_voice, encoders.encode_face, draws.pop("voice"), 64)
    states = list(published_loop(generator, distance, latent_std=9.0, **draws, **asdict(schedule)))

    outcome, last = engine.outcome("face"), states[-1]
    assert [state.similarity for state in states] == pytest.approx(outcome.figures["similarity"].tolist(), abs=1e-6)
    torch.testing.assert_close(last.latent, outcome.latent, rtol=0, atol=1e-5)
    assert (last.latent - draws["first_latent"]).abs().max() > 0.01
    for level, expected in zip(last.noise, outcome.noise, strict=True):
        torch.testing.assert_close(level, expected, rtol=0, atol=5e-3)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder_input(generator(last.latent, last.noise), 64, 64),
            encoder_input(ours(outcome.latent, outcome.noise), 64, 64),
            rtol=0,
            atol=1e-2,
        )


def test_every_parameter_gets_a_gradient(weights, draws):
    generator, encoders = StyleGAN2(weights), synthetic_encoders(ENCODER)
    distance = voice_distance(encoders.encode_voice, encoders.encode_face, draws["voice"], 64)
    rest = {name: value for name, value in draws.items() if name != "voice"}
    next(published_loop(generator, distance, latent_std=9.0, **rest))
    assert not [name for name, value in generator.named_parameters() if value.grad is None]
    assert not [name for name, value in encoders.named_parameters() if value.grad is None]


def test_synthetic_activations_are_of_a_trained_size(ours, draws):
    with torch.no_grad():
        w = ours.map(torch.randn(500, 512, generator=torch.Generator().manual_seed(7)))
        image = ours(draws["first_latent"], draws["first_noise"])
        faces = synthetic_encoders(ENCODER).encode_face(torch.randn(8, 3, 64, 64))
    assert w.var(dim=0).sum().sqrt() == pytest.approx(LATENT_STD, rel=0.02)
    assert 0.1 < image.std() < 1
    assert 0.1 < faces.mean() < 10
