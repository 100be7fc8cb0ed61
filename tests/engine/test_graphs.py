"""Steps as captured graphs: sizes, padding, and equal results. Functions stand for graphs; tests/gpu has real ones."""

import pytest
import torch

from tests.support.tiny_engine import engine, item, take_steps
from voicestyle.engine.rows import ALIGNMENT, Rows
from voicestyle.engine.step_graphs import StepGraphs


class Captures:
    """Runs a function at its capture, as a graph does, and remembers what is replayed."""

    def __init__(self):
        self.replayed = []

    def __call__(self, run):
        run()
        rows = run.args[0]

        def replay():
            self.replayed.append(rows.stop)
            run()

        return replay


@pytest.mark.parametrize(
    ("capacity", "sizes"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])]
)
def test_graph_sizes_double_up_to_the_capacity(capacity, sizes):
    captured = []
    graphs = StepGraphs(lambda *_: None, torch.zeros(3, capacity), lambda run: captured.append(run.args[0].stop))
    assert graphs.sizes == sizes
    assert captured == sizes[::-1]


def test_a_batch_uses_the_graph_of_the_next_size():
    seen = []
    graphs = StepGraphs(
        lambda rows, packed: seen.append((rows.stop, packed.clone())), torch.zeros(2, 8), lambda run: run
    )
    for count in (1, 2, 3, 5, 8):
        numbers = torch.arange(2.0 * count).view(2, count)
        graphs.step(slice(0, count), numbers)
        size, packed = seen[-1]
        assert size == {1: 1, 2: 2, 3: 4, 5: 8, 8: 8}[count]
        assert packed.shape == (2, size)
        assert torch.equal(packed[:, :count], numbers)


def test_padded_steps_equal_plain_steps_while_items_change():
    captures = Captures()
    plain, by_graphs = engine(capacity=6, batched=True), engine(capacity=6, batched=True)
    by_graphs.capture(captures)
    finished = []
    for each in (plain, by_graphs):
        for number in range(3):
            each.add(number, **item(number, steps=6 + 3 * number))
        take_steps(each, 4)
        each.remove(0)  # the last item moves into its row
        for number in (3, 4, 5):
            each.add(number, **item(number))
        finished.append(take_steps(each, 40))
    assert captures.replayed[0] == 4
    assert 6 in captures.replayed
    assert captures.replayed[-1] == 4
    for number in range(1, 6):
        expected, outcome = (outcomes[number] for outcomes in finished)
        torch.testing.assert_close(outcome.latent, expected.latent, rtol=1e-9, atol=1e-10)
        for ours, theirs in zip(outcome.noise, expected.noise, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
        similarity, expected_similarity = (each.figures["similarity"] for each in (outcome, expected))
        torch.testing.assert_close(similarity, expected_similarity, rtol=0, atol=1e-10)


def test_capture_needs_an_empty_engine():
    for batched in (True, False):
        running = engine(batched=batched)
        running.add("a", **item(0))
        with pytest.raises(RuntimeError, match="before an item is added, got 1 items"):
            running.capture(Captures())


def test_only_the_sizes_that_are_asked_for_are_captured():
    captures = Captures()
    running = engine(capacity=4, batched=True)
    running.capture(captures, sizes=[3])
    for number in range(4):
        running.add(number, **item(number))
        if number < 3:
            running.step()
    assert captures.replayed == [3, 3, 3]
    with pytest.raises(ValueError, match=r"the captured sizes are \[3\], got a batch of 4"):
        running.step()


@pytest.mark.parametrize("sizes", [[], [0, 1], [2, 1], [1, 1], [1, 5]])
def test_sizes_that_are_no_ascending_batch_sizes_are_an_error(sizes):
    with pytest.raises(ValueError, match="sizes must be ascending numbers of 1 to 4"):
        engine(capacity=4, batched=True).capture(Captures(), sizes)


def test_a_sequential_engine_has_no_batch_sizes():
    with pytest.raises(ValueError, match=r"one item at a time, got sizes \[1\]"):
        engine(batched=False).capture(Captures(), sizes=[1])


def test_sequential_graphs_step_single_rows_and_give_the_bits_of_an_item_alone():
    """Rows move when items leave: each step must replay the graph of the row in which the item is now."""
    captures = Captures()
    running = engine(capacity=3, batched=False)
    running.capture(captures)
    for number in range(3):
        running.add(number, **item(number, steps=6 + 3 * number))
    finished = take_steps(running, 4)
    assert captures.replayed == [1, 2, 3] * 4  # the end of each row's slice
    running.remove(0)  # the item in the last row moves into its row
    running.add(3, **item(3))
    for _ in range(5):
        running.step([3])  # one item of several takes steps alone
    finished |= take_steps(running, 40)
    assert set(finished) == {1, 2, 3}
    for number, outcome in finished.items():
        alone = engine(capacity=1, batched=False)
        alone.add(number, **item(number, steps=6 + 3 * number if number < 3 else 20))
        expected = take_steps(alone, 40)[number]
        assert torch.equal(outcome.latent, expected.latent)
        assert all(map(torch.equal, outcome.noise, expected.noise))
        assert torch.equal(outcome.figures["similarity"], expected.figures["similarity"])


@pytest.mark.parametrize("shape", [(6,), (501, 1), (1, 4, 4), (2, 512), (1, 64, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_are_equally_aligned_off_the_cpu_and_packed_on_it(shape, dtype):
    aligned = Rows(3, torch.device("meta")).allocate(*shape, dtype=dtype)
    assert aligned.shape == (3, *shape)
    assert aligned.stride(0) * dtype.itemsize % ALIGNMENT == 0
    assert aligned[1].is_contiguous()
    assert Rows(3, torch.device("cpu")).allocate(*shape, dtype=dtype).is_contiguous()


def test_aligned_rows_change_no_bit(monkeypatch):
    """The rows of a GPU, which are padded, on this device."""
    outcomes = []
    for alignment in (1, ALIGNMENT):
        monkeypatch.setattr("voicestyle.engine.rows._alignment", lambda device, chosen=alignment: chosen)
        running = engine(capacity=3, batched=False)
        for number in range(3):
            running.add(number, **item(number))
        outcomes.append(take_steps(running, 20))
    for packed, padded in zip(*(each.values() for each in outcomes), strict=True):
        assert torch.equal(packed.latent, padded.latent)
        assert all(map(torch.equal, packed.noise, padded.noise))
