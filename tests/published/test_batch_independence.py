"""The engine's promise with StyleGAN2 and its noise maps: on a CPU, company does not change one bit of an answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cmpc2 import ResNet
from voicestyle.engine import Engine
from voicestyle.generators import read_stylegan2

STEPS = 6
EMBEDDING = 8


@pytest.fixture(scope="module")
def networks(narrow, small_encoder, weights_of, tmp_path_factory):
    """256 pixels, whose noise maps are large enough for torch to add up one alone otherwise than one of several."""
    path = tmp_path_factory.mktemp("checkpoint") / "stylegan2.pt"
    torch.save({"g_ema": weights_of(replace(narrow, size=256, max_width=8))}, path)
    torch.manual_seed(0)
    return read_stylegan2(path)[0], ResNet(3, small_encoder).eval().requires_grad_(False)


@pytest.fixture(autouse=True, params=[1, 2], ids=["1-thread", "2-threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def engine_of(networks, **options):
    generator, encoder = networks
    return Engine(generator, encoder, latent_std=10.0, embedding_dim=EMBEDDING, capacity=4, **options)


def add(engine, number, steps=STEPS):
    source = torch.Generator().manual_seed(number)
    voice, first = torch.randn(EMBEDDING, generator=source), torch.randn(512, generator=source)
    engine.add(number, voice, first, seed=number, steps=steps)


def outcome(engine, number):
    outcome = engine.outcome(number)
    return [outcome.latent, *outcome.noise, outcome.similarity]


def alone(networks, number, **options):
    engine = engine_of(networks, **options)
    add(engine, number)
    engine.step(STEPS)
    return outcome(engine, number)


def in_company(networks, number, **options):
    """It joins as the third, and moves into the first row when its owner leaves."""
    engine = engine_of(networks, **options)
    add(engine, 11, steps=9)
    engine.step(2)
    add(engine, 12, steps=9)
    add(engine, number)
    engine.step(3)
    engine.remove(11)
    add(engine, 13, steps=9)
    engine.step(STEPS)
    assert engine.outcome(number).largest_batch == 3
    return outcome(engine, number)


def test_company_does_not_change_one_bit(networks):
    for ours, theirs in zip(in_company(networks, 1), alone(networks, 1), strict=True):
        assert torch.equal(ours, theirs)


def test_together_it_is_the_same_up_to_rounding(networks):
    """The way that a GPU takes."""
    together = in_company(networks, 1, together=True)
    for ours, theirs in zip(together, alone(networks, 1), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
