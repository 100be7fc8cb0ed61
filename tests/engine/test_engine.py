"""The engine against a plain twin of the published loop, and its promise that nobody feels a neighbour."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tests.support.tiny_engine import EMBEDDING, STD, TinyGenerator, engine, face_encoder, request
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


def published_loop(voice_embedding, first_latent, noise, latent_noise, steps, schedule=PUBLISHED, **_):
    """The published loop for one face, written plainly around torch.optim.Adam, all loss terms included."""
    generator = TinyGenerator()
    w = first_latent[None].clone().requires_grad_()
    maps = [level[None].clone().requires_grad_() for level in noise]
    optimiser = torch.optim.Adam([w, *maps], betas=schedule.betas, eps=schedule.eps)
    similarities = []
    for i in range(steps):
        t = i / steps
        falling = 0.5 - 0.5 * math.cos(math.pi * min(1, (1 - t) / schedule.ramp_down))
        lr = schedule.base_lr * falling * min(1, t / schedule.ramp_up)
        optimiser.param_groups[0]["lr"] = lr
        noisy = w + latent_noise[i] * (STD * schedule.noise * max(0, 1 - t / schedule.noise_ramp) ** 2)
        image = generator(noisy, maps).clamp(-1, 1)
        similarity = F.cosine_similarity(face_encoder(image), voice_embedding[None]).squeeze()
        regulariser = torch.zeros((), dtype=torch.float64)
        for level in maps:
            while True:
                regulariser = regulariser + (level * level.roll(1, 3)).mean() ** 2
                regulariser = regulariser + (level * level.roll(1, 2)).mean() ** 2
                if level.shape[-1] <= 8:
                    break
                level = F.avg_pool2d(level, 2)
        loss = (1 - similarity) + schedule.noise_regularisation * regulariser + 0.001 * (w - noisy).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for level in maps:
                level.copy_((level - level.mean()) / level.std())
        similarities.append(similarity.item())
    return SimpleNamespace(latent=w.detach(), noise=[level.detach() for level in maps], similarity=similarities)


@pytest.fixture(params=[False, True], ids=["one-by-one", "together"])
def together(request):
    return request.param


def test_equals_the_published_loop(together):
    running = engine(together=together)
    running.add("one", **request(0))
    running.step(20)
    outcome, expected = running.outcome("one"), published_loop(**request(0))
    torch.testing.assert_close(outcome.latent, expected.latent, rtol=1e-9, atol=1e-10)
    for ours, theirs in zip(outcome.noise, expected.noise, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)
    assert outcome.similarity.tolist() == pytest.approx(expected.similarity, abs=1e-10)


def test_joining_and_leaving_change_nobodys_answer(together):
    running = engine(together=together)
    running.add("early", **request(0))
    running.step(3)
    running.add("leaver", **request(1))
    running.add("late", **request(2, steps=12))
    running.step(4)
    running.remove("leaver")  # the last row moves into the freed one
    running.add("last", **request(3))
    running.step(20)
    for number, name, steps in ((0, "early", 20), (2, "late", 12), (3, "last", 20)):
        expected = published_loop(**request(number, steps))
        torch.testing.assert_close(running.outcome(name).latent, expected.latent, rtol=1e-8, atol=1e-9)
        assert running.outcome(name).similarity.tolist() == pytest.approx(expected.similarity, abs=1e-9)
    assert running.outcome("early").largest_batch == 3
    assert running.live == 0
    assert set(running.progress()) == {"early", "late", "last"}


def test_those_who_finish_together_keep_their_own_answers(together):
    running = engine(together=together)
    for number in range(3):
        running.add(number, **request(number, steps=5))
    running.step(5)
    for number in range(3):
        expected = published_loop(**request(number, steps=5))
        assert running.outcome(number).similarity.tolist() == pytest.approx(expected.similarity, abs=1e-9)
        torch.testing.assert_close(running.outcome(number).latent, expected.latent, rtol=1e-9, atol=1e-10)


def test_the_seed_decides_the_noise_whatever_the_row():
    arguments = {key: value for key, value in request(0).items() if key not in ("noise", "latent_noise")}
    alone, crowded = engine(), engine()
    alone.add("x", **arguments)
    crowded.add("other", **request(1))
    crowded.add("x", **arguments)
    alone.step(5)
    crowded.step(5)
    torch.testing.assert_close(alone.outcome("x").latent, crowded.outcome("x").latent, rtol=1e-9, atol=1e-10)
    other_seed = engine()
    other_seed.add("x", **arguments | {"seed": 9})
    other_seed.step(5)
    assert not torch.allclose(alone.outcome("x").latent, other_seed.outcome("x").latent)


def test_similarity_rises_and_is_read_for_all_at_once():
    running = engine()
    for number in range(3):
        running.add(number, **request(number, steps=40))
    assert all(math.isnan(p.similarity) for p in running.progress().values())
    running.step(1)
    first = running.progress()
    running.step(39)
    last = running.progress()
    for number in range(3):
        assert last[number].finished
        assert last[number].similarity > first[number].similarity
        assert last[number].similarity == pytest.approx(float(running.outcome(number).similarity[-1]))


def test_on_a_cpu_one_at_a_time_unless_told_otherwise():
    for options, expected in (({}, {1}), ({"together": True}, {3})):
        running, seen = engine(**options), set()
        running.face_encoder = lambda images, seen=seen: seen.add(len(images)) or face_encoder(images)
        for number in range(3):
            running.add(number, **request(number))
        running.step(2)
        assert seen == expected
        assert running.outcome(0).largest_batch == 3


def test_parameters_get_no_gradient():
    running = engine()
    running.add("x", **request(0))
    running.step(2)
    assert running.generator.frozen.grad is None


def test_a_generator_without_noise_maps_and_larger_images():
    class Fixed(TinyGenerator):
        noise_shapes = []

        def forward(self, w, noise):
            assert noise == []
            return F.interpolate(torch.tanh(w @ self.weight).view(-1, 3, 16, 16), 32)

    running = Engine(
        Fixed(),
        lambda images: face_encoder(images[:, :, ::2, ::2]),
        latent_std=STD,
        embedding_dim=EMBEDDING,
        image_size=16,
        encoder_size=32,
        dtype=torch.float64,
    )
    running.add("x", torch.ones(EMBEDDING), torch.zeros(5), seed=0, steps=8)
    running.step(8)
    assert running.outcome("x").similarity[-1] > running.outcome("x").similarity[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be 1 to 40, got 0"),
        ({"steps": 41}, "steps must be 1 to 40, got 41"),
        ({"voice_embedding": torch.ones(3)}, r"voice_embedding must have shape \[6\], got \[3\]"),
        ({"first_latent": torch.ones(1, 5)}, r"first_latent must have shape \[5\]"),
        ({"noise": [torch.ones(1, 4, 4)]}, "takes 2 noise maps, got 1"),
        ({"latent_noise": torch.ones(3, 5)}, r"latent_noise must have shape \[20, 5\]"),
    ],
)
def test_wrong_arguments_leave_nothing_behind(change, message):
    running = engine()
    with pytest.raises(ValueError, match=message):
        running.add("x", **request(0) | change)
    assert running.live == 0
    running.add("x", **request(0))


def test_full_twice_and_unknown():
    running = engine(capacity=1)
    running.add("x", **request(0))
    with pytest.raises(ValueError, match="'x' is already in the batch"):
        running.add("x", **request(0))
    with pytest.raises(RuntimeError, match="full: 1 requests are live"):
        running.add("y", **request(1))
    with pytest.raises(KeyError):
        running.remove("y")
    running.step(20)
    with pytest.raises(ValueError, match="finished and not yet removed"):
        running.add("x", **request(0))
    running.remove("x")
    running.add("x", **request(0))


def test_each_item_has_its_own_schedule(together):
    running = engine(together=together, schedule=Schedule(base_lr=0.02))
    running.add("engine's", **request(0))
    running.add("own", **request(1), schedule=OTHER)
    running.step(5)
    running.add("late", **request(2, steps=12), schedule=OTHER)
    running.step(20)
    for number, name, steps, schedule in (
        (0, "engine's", 20, Schedule(base_lr=0.02)),
        (1, "own", 20, OTHER),
        (2, "late", 12, OTHER),
    ):
        expected = published_loop(**request(number, steps), schedule=schedule)
        outcome = running.outcome(name)
        torch.testing.assert_close(outcome.latent, expected.latent, rtol=1e-8, atol=1e-9)
        for ours, theirs in zip(outcome.noise, expected.noise, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)
        assert outcome.similarity.tolist() == pytest.approx(expected.similarity, abs=1e-9)


def test_rows_of_a_step_need_nothing_but_their_tensors():
    whole, by_hand = engine(together=True), engine(together=True)
    for each in (whole, by_hand):
        each.add("a", **request(0))
        each.add("b", **request(1), schedule=OTHER)
    whole.step(1)
    numbers = [StepNumbers.at(schedule, 0, 20, STD) for schedule in (Schedule(), OTHER)]
    packed = StepNumbers.pack(numbers, torch.device("cpu"), torch.float64)
    by_hand._step_rows(slice(0, 2), packed)
    for key in "ab":
        assert torch.equal(whole.outcome(key).latent, by_hand.outcome(key).latent)
    assert {at.step for at in by_hand.progress().values()} == {0}


def steps_of(running):
    return {key: at.step for key, at in running.progress().items()}


def test_one_by_one_faces_are_finished_one_after_the_other():
    running = engine(together=False)
    running.add("a", **request(1))
    for _ in range(4):
        running.advance()
    running.add("b", **request(2))
    running.advance()
    assert steps_of(running) == {"a": 4, "b": 1}  # a newcomer's first step comes first
    while not running.progress()["a"].finished:
        running.advance()
    assert 4 <= steps_of(running)["b"] <= 7
    assert running.outcome("b").largest_batch == 2


@pytest.mark.parametrize("short", [1, 4, 8])
def test_one_by_one_short_ones_pass_a_long_one_that_gets_on_all_the_same(short):
    running = engine(together=False)
    running.add("long", **request(1, steps=40))
    running.advance()
    for number in range(24 // short):
        running.add(number, **request(number, steps=short))
        while not running.progress()[number].finished:
            running.advance()
    # Of each four steps one is the long one's, or as near as the short ones' number of steps lets it.
    assert 24 // 4 <= steps_of(running)["long"] <= 24 // 2


def test_together_an_advance_is_a_step_of_all():
    running = engine(together=True)
    running.advance()
    running.add("a", **request(1))
    running.add("b", **request(2))
    running.advance()
    assert {key: at.step for key, at in running.progress().items()} == {"a": 1, "b": 1}


def test_advancing_and_stepping_give_the_same_face():
    stepped, advanced = engine(together=False), engine(together=False)
    for each in (stepped, advanced):
        each.add("a", **request(1, steps=5))
        each.add("b", **request(2, steps=7))
    stepped.step(7)
    for _ in range(12):
        advanced.advance()
    for key in "ab":
        assert advanced.progress()[key].finished
        assert torch.equal(stepped.outcome(key).latent, advanced.outcome(key).latent)
