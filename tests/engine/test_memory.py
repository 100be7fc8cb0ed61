"""A batched step on a device with too little memory for all of its items at once."""

import logging

import pytest
import torch

from tests.support.tiny_engine import engine, face_encoder, item, objective, take_steps


class Memory:
    """A face encoder that has enough memory for `most` images at once."""

    def __init__(self, most, error=None):
        self.most = most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.tried = []

    def __call__(self, images):
        self.tried.append(len(images))
        if len(images) > self.most:
            raise self.error
        return face_encoder(images)


def engine_of(memory, count=4, **options):
    running = engine(objective=objective(memory), batched=True, **options)
    for number in range(count):
        running.add(number, **item(number))
    return running


def states(running):
    outcomes = [running.outcome(key) for key in running.progress()]
    return [tensor for each in outcomes for tensor in (each.latent, *each.noise, each.figures["similarity"])]


def assert_equal(one, other):
    assert len(one) == len(other)
    for ours, theirs in zip(one, other, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("most", "count", "tried"),
    [(2, 4, [4, 2, 2]), (3, 4, [4, 2, 2]), (1, 4, [4, 2, 1, 1, 1, 1]), (2, 3, [3, 1, 1, 1]), (4, 4, [4])],
)
def test_a_step_halves_what_goes_through_the_networks_at_once(most, count, tried, caplog):
    memory = Memory(most)
    running = engine_of(memory, count)
    running.step()
    assert memory.tried == tried
    assert {at.step for at in running.progress().values()} == {1}
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == sum(size > most for size in tried)
    if warnings:
        assert f"a step of {count} faces at once; from now on it takes {count // 2} at once" in warnings[0].getMessage()


def test_the_smaller_size_stays():
    memory = Memory(2)
    running = engine_of(memory)
    running.step()
    memory.tried.clear()
    memory.most = 4
    take_steps(running, 3)
    assert memory.tried == [2, 2] * 3


def test_results_are_those_of_an_engine_with_the_smaller_parts_from_the_start():
    shrunk, small = engine_of(Memory(2)), engine_of(Memory(4))
    small._parts.most = 2
    for running in (shrunk, small):
        assert take_steps(running, 19) == {}
    assert_equal(states(shrunk), states(small))
    whole = engine_of(Memory(4))
    take_steps(whole, 19)
    for ours, theirs in zip(states(shrunk), states(whole), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)


def test_a_later_part_that_lacks_memory_leaves_no_item_stepped_twice():
    """Memory that runs out half-way, as another process takes it."""
    memory = Memory(2)
    running, expected = engine_of(memory), engine_of(Memory(1))
    running.step()
    expected.step()
    encode = memory.__class__.__call__
    calls = []

    def sudden(images):
        calls.append(len(images))
        memory.most = 1 if len(calls) > 1 else 2
        return encode(memory, images)

    running.objective._face_encoder = sudden
    running.step()
    expected.step()
    assert calls == [2, 2, 1, 1]
    for ours, theirs in zip(states(running), states(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("most", "error", "tried"),
    [
        (0, None, [4, 2, 1]),  # a single item lacks memory
        (1, RuntimeError("The size of tensor a must match"), [4]),  # nothing that fewer items would help
        (1, torch.AcceleratorError("CUDA error: unspecified launch failure", 719), [4]),
    ],
)
def test_a_step_that_raises_changes_nothing(most, error, tried):
    memory = Memory(4)
    running = engine_of(memory)
    take_steps(running, 2)
    before = states(running)
    memory.most, memory.error = most, error or memory.error
    memory.tried.clear()
    with pytest.raises(type(memory.error)):
        running.step()
    assert memory.tried == tried
    assert_equal(states(running), before)
    assert {at.step for at in running.progress().values()} == {2}
    memory.most = 4
    running.step()
    expected = engine_of(Memory(4))
    take_steps(expected, 3)
    for ours, theirs in zip(states(running), states(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_a_lack_of_memory_while_graphs_are_captured_is_not_hidden():
    memory = Memory(2)
    running = engine(objective=objective(memory), batched=True)
    with pytest.raises(torch.OutOfMemoryError):
        running.capture(lambda run: run() or run)
    assert memory.tried == [4]
