"""Steps as captured graphs: sizes, padding, and equal results. Functions stand for graphs; tests/gpu has real ones."""

import pytest
import torch

from tests.support.tiny_engine import engine, item, take_steps
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
        graphs.step(numbers)
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


def test_capture_needs_an_empty_batched_engine():
    running = engine(batched=True)
    running.add("a", **item(0))
    with pytest.raises(RuntimeError, match="before an item is added, got 1 items"):
        running.capture(Captures())
    with pytest.raises(RuntimeError, match="graphs need a batched engine"):
        engine(batched=False).capture(Captures())
