"""The engine against a plain implementation of the published loop, and the independence of its items."""

import math
from dataclasses import asdict
from itertools import islice

import pytest
import torch
import torch.nn.functional as F

from benchmarks.published_loop import published_loop, voice_distance
from tests.support.tiny_engine import EMBEDDING, STD, TinyGenerator, engine, face_encoder, item, objective, take_steps
from voicestyle.engine import Engine, Schedule
from voicestyle.engine.step_numbers import StepNumbers

PUBLISHED = Schedule()
OTHER = Schedule(
    base_lr=0.05,
    ramp_up=0.2,
    ramp_down=0.5,
    noise=0.02,
    noise_ramp=0.4,
    noise_regularisation=1e3,
    betas=(0.5, 0.9),
    eps=1e-3,
)


def published(target, first_latent, noise, latent_noise, steps, schedule=PUBLISHED, **_):
    """The states of the published loop after each step of one item."""
    states = published_loop(
        TinyGenerator(),
        voice_distance(lambda voice: voice, face_encoder, target[0][None], 16),
        first_latent=first_latent[None],
        first_noise=[level[None] for level in noise],
        latent_noise=latent_noise,
        latent_std=STD,
        **asdict(schedule),
    )
    return list(islice(states, steps))


@pytest.fixture(params=[False, True], ids=["sequential", "batched"])
def batched(request):
    return request.param


def assert_equals_published(outcome, number, steps=20, schedule=PUBLISHED):
    expected = published(**item(number, steps), schedule=schedule)
    torch.testing.assert_close(outcome.latent, expected[-1].latent, rtol=1e-8, atol=1e-9)
    for ours, theirs in zip(outcome.noise, expected[-1].noise, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)
    assert outcome.figures["similarity"].tolist() == pytest.approx([state.similarity for state in expected], abs=1e-9)


def test_engine_equals_the_published_loop(batched):
    running = engine(batched=batched)
    running.add("one", **item(0))
    assert_equals_published(take_steps(running, 20)["one"], 0)


def test_items_are_independent_of_added_and_removed_ones(batched):
    running = engine(batched=batched)
    running.add("early", **item(0))
    take_steps(running, 3)
    running.add("removed", **item(1))
    running.add("late", **item(2, steps=12))
    take_steps(running, 4)
    running.remove("removed")  # the last row moves into the freed one
    running.add("last", **item(3))
    finished = take_steps(running, 20)
    assert running.live == 0
    for number, name, steps in ((0, "early", 20), (2, "late", 12), (3, "last", 20)):
        assert_equals_published(finished[name], number, steps)


def test_items_that_finish_at_once_keep_their_results(batched):
    running = engine(batched=batched)
    for number in range(3):
        running.add(number, **item(number, steps=5))
    finished = take_steps(running, 5)
    for number in range(3):
        assert_equals_published(finished[number], number, steps=5)


def test_seed_decides_the_noise_in_any_row():
    arguments = {key: value for key, value in item(0).items() if key not in ("noise", "latent_noise")}
    alone, crowded = engine(), engine()
    alone.add("x", **arguments)
    crowded.add("other", **item(1))
    crowded.add("x", **arguments)
    take_steps(alone, 5)
    take_steps(crowded, 5)
    torch.testing.assert_close(alone.outcome("x").latent, crowded.outcome("x").latent, rtol=1e-9, atol=1e-10)
    other_seed = engine()
    other_seed.add("x", **arguments | {"seed": 9})
    take_steps(other_seed, 5)
    assert not torch.allclose(alone.outcome("x").latent, other_seed.outcome("x").latent)


def test_similarity_rises_and_progress_reports_it():
    running = engine()
    for number in range(3):
        running.add(number, **item(number, steps=40))
    assert all(math.isnan(p.figures["similarity"]) for p in running.progress().values())
    take_steps(running, 1)
    first = running.progress()
    take_steps(running, 38)
    last = running.progress()
    for number in range(3):
        assert last[number].step == 39
        similarity = last[number].figures["similarity"]
        assert similarity > first[number].figures["similarity"]
        assert similarity == pytest.approx(float(running.outcome(number).figures["similarity"][-1]))


@pytest.mark.parametrize(("options", "images"), [({}, {1}), ({"batched": True}, {3})])
def test_a_cpu_is_sequential_by_default(options, images):
    seen = set()
    running = engine(objective=objective(lambda images: seen.add(len(images)) or face_encoder(images)), **options)
    for number in range(3):
        running.add(number, **item(number))
    take_steps(running, 2)
    assert seen == images


def test_parameters_get_no_gradient():
    running = engine()
    running.add("x", **item(0))
    take_steps(running, 2)
    assert running.generator.frozen.grad is None


def test_a_generator_without_noise_maps_and_larger_images():
    class Fixed(TinyGenerator):
        noise_shapes = []

        def forward(self, w, noise):
            assert noise == []
            return F.interpolate(torch.tanh(w @ self.weight).view(-1, 3, 16, 16), 32)

    running = Engine(
        Fixed(),
        objective(lambda images: face_encoder(images[:, :, ::2, ::2]), encoder_size=32),
        latent_std=STD,
        dtype=torch.float64,
    )
    running.add("x", [torch.ones(EMBEDDING)], torch.zeros(5), seed=0, steps=8)
    similarity = take_steps(running, 8)["x"].figures["similarity"]
    assert similarity[-1] > similarity[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be 1 to 40, got 0"),
        ({"steps": 41}, "steps must be 1 to 40, got 41"),
        ({"target": [torch.ones(3)]}, r"target must have shape \[6\], got \[3\]"),
        ({"target": []}, "a target of this objective has 1 tensors, got 0"),
        ({"first_latent": torch.ones(1, 5)}, r"first_latent must have shape \[5\]"),
        ({"noise": [torch.ones(1, 4, 4)]}, "takes 2 noise maps, got 1"),
        ({"latent_noise": torch.ones(3, 5)}, r"latent_noise must have shape \[20, 5\]"),
    ],
)
def test_wrong_arguments_leave_nothing_behind(change, message):
    running = engine()
    with pytest.raises(ValueError, match=message):
        running.add("x", **item(0) | change)
    assert running.live == 0
    running.add("x", **item(0))


def test_full_batch_known_and_unknown_keys():
    running = engine(capacity=1)
    running.add("x", **item(0))
    with pytest.raises(ValueError, match="'x' is already in the batch"):
        running.add("x", **item(0))
    with pytest.raises(RuntimeError, match=r"the batch is full \(1 items\)"):
        running.add("y", **item(1))
    for unknown in (running.remove, running.outcome, lambda key: running.step([key])):
        with pytest.raises(KeyError):
            unknown("y")
    running.remove("x")
    running.add("x", **item(0))


def test_each_item_has_its_own_schedule(batched):
    running = engine(batched=batched, schedule=Schedule(base_lr=0.02))
    running.add("engine's", **item(0))
    running.add("own", **item(1), schedule=OTHER)
    take_steps(running, 5)
    running.add("late", **item(2, steps=12), schedule=OTHER)
    finished = take_steps(running, 20)
    assert_equals_published(finished["engine's"], 0, schedule=Schedule(base_lr=0.02))
    assert_equals_published(finished["own"], 1, schedule=OTHER)
    assert_equals_published(finished["late"], 2, 12, schedule=OTHER)


def test_the_device_part_of_a_step_reads_tensors_alone():
    whole, by_hand = engine(batched=True), engine(batched=True)
    for each in (whole, by_hand):
        each.add("a", **item(0))
        each.add("b", **item(1), schedule=OTHER)
    whole.step()
    numbers = [StepNumbers.at(schedule, 0, 20, STD) for schedule in (Schedule(), OTHER)]
    packed = StepNumbers.pack(numbers, torch.device("cpu"), torch.float64)
    by_hand._step_rows(slice(0, 2), packed)
    for key in "ab":
        assert torch.equal(whole.outcome(key).latent, by_hand.outcome(key).latent)
    assert {at.step for at in by_hand.progress().values()} == {0}


def test_a_sequential_engine_steps_the_named_items():
    running = engine(batched=False)
    for number in range(3):
        running.add(number, **item(number, steps=5))
    for keys in ([1], [2, 0], [1], [1], [1]):
        assert running.step(keys) == []
    assert {key: at.step for key, at in running.progress().items()} == {0: 1, 1: 4, 2: 1}
    assert running.step([0, 1]) == [1]
    assert_equals_published(running.outcome(1), 1, steps=5)
    with pytest.raises(ValueError, match="item 1 has taken all of its 5 steps; remove it first"):
        running.step([1])


def test_a_batched_engine_steps_all_or_nothing():
    running = engine(batched=True)
    assert running.step() == []
    running.add("a", **item(1))
    running.add("b", **item(2))
    assert running.step(["b", "a"]) == []
    with pytest.raises(ValueError, match="steps all of its 2 items at once, got 1"):
        running.step(["a"])
    assert {key: at.step for key, at in running.progress().items()} == {"a": 1, "b": 1}


def test_w_plus_equals_the_published_loop(batched):
    class Rows(TinyGenerator):
        def forward(self, w, noise):
            return super().forward(w[:, 0] + 2 * w[:, 1], noise)

    running = Engine(
        Rows(), objective(), latent_std=STD, latent_rows=2, max_steps=40, dtype=torch.float64, batched=batched
    )
    items = []
    for number in range(2):
        given = item(number)
        source = torch.Generator().manual_seed(200 + number)
        given["first_latent"] = torch.randn(2, 5, generator=source, dtype=torch.float64)
        given["latent_noise"] = torch.randn(20, 2, 5, generator=source, dtype=torch.float64)
        items.append(given)
        running.add(number, **given)
    finished = take_steps(running, 20)
    for number, given in enumerate(items):
        states = published_loop(
            Rows(),
            voice_distance(lambda voice: voice, face_encoder, given["target"][0][None], 16),
            first_latent=given["first_latent"][None],
            first_noise=[level[None] for level in given["noise"]],
            latent_noise=given["latent_noise"],
            latent_std=STD,
        )
        last = list(states)[-1]
        torch.testing.assert_close(finished[number].latent, last.latent, rtol=1e-8, atol=1e-9)
    with pytest.raises(ValueError, match=r"first_latent must have shape \[2, 5\], got \[5\]"):
        running.add("w", **item(3))
