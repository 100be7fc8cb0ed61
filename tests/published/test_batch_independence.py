"""On a CPU, results with StyleGAN2 and its noise maps do not depend on other requests in the batch, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cmpc2 import ResNet
from tests.support.tiny_engine import take_steps
from voicestyle.engine import Engine, VoiceObjective
from voicestyle.generators import read_stylegan2

STEPS = 6
EMBEDDING = 8


@pytest.fixture(scope="module")
def networks(narrow, small_encoder, weights_of, tmp_path_factory):
    """At 256 pixels, noise maps are so large that torch would sum one and several in a different order."""
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
    return Engine(generator, VoiceObjective(encoder, embedding_dim=EMBEDDING), latent_std=10.0, capacity=4, **options)


def add(engine, number, steps=STEPS):
    source = torch.Generator().manual_seed(number)
    voice, first = torch.randn(EMBEDDING, generator=source), torch.randn(512, generator=source)
    engine.add(number, [voice], first, seed=number, steps=steps)


def alone(networks, number):
    engine = engine_of(networks)
    add(engine, number)
    return take_steps(engine, STEPS)[number]


def in_a_batch(networks, number, **options):
    """Add the request as the third; it moves to the first row when that request is removed."""
    engine = engine_of(networks, **options)
    add(engine, 11, steps=9)
    take_steps(engine, 2)
    add(engine, 12, steps=9)
    add(engine, number)
    take_steps(engine, 3)
    engine.remove(11)
    add(engine, 13, steps=9)
    assert engine.live == 3
    return take_steps(engine, STEPS - 3)[number]


def tensors(outcome):
    return [outcome.latent, *outcome.noise, outcome.figures["similarity"]]


def test_other_requests_do_not_change_a_single_bit(networks):
    for ours, theirs in zip(tensors(in_a_batch(networks, 1)), tensors(alone(networks, 1)), strict=True):
        assert torch.equal(ours, theirs)


def test_batched_results_are_equal_up_to_rounding(networks):
    """`batched` is the default on GPUs."""
    batched = in_a_batch(networks, 1, batched=True)
    for ours, theirs in zip(tensors(batched), tensors(alone(networks, 1)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
