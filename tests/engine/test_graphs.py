"""Steps as captured graphs: sizes, padding, and equal results. Without a GPU, functions stand for graphs."""

import pytest
import torch

from tests.support.tiny_engine import engine, item, take_steps
from voicestyle.engine import CudaCapture
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


@pytest.mark.gpu
def test_cuda_graphs_equal_single_kernels():
    from voicestyle.engine import Engine, VoiceObjective
    from voicestyle.generators import StyleGAN2, StyleGAN2Config

    torch.manual_seed(0)
    generator = StyleGAN2(StyleGAN2Config(64, max_width=32)).cuda()
    for tensor in generator.buffers():
        if tensor.dim() == 4 and tensor.shape[-1] == 3:
            tensor.normal_(0, 0.1)
    weight = torch.randn(3 * 64 * 64, 8, device="cuda") / 100
    outcomes = []
    for capture in (None, CudaCapture(torch.device("cuda"))):
        running = Engine(
            generator,
            VoiceObjective(lambda images: images.flatten(1) @ weight, embedding_dim=8, image_size=64),
            latent_std=1.0,
            capacity=4,
            device="cuda",
        )
        if capture:
            running.capture(capture)
        for number in range(3):
            running.add(number, [torch.ones(8)], torch.zeros(512), seed=number, steps=5 + number)
        finished = take_steps(running, 7)
        outcomes.append([finished[number] for number in range(3)])
    for plain, captured in zip(*outcomes, strict=True):
        similarity, expected = (each.figures["similarity"] for each in (captured, plain))
        torch.testing.assert_close(similarity, expected, rtol=0, atol=1e-3)
        torch.testing.assert_close(captured.latent, plain.latent, rtol=0, atol=1e-2)
