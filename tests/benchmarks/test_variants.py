"""Every variant takes steps, and they all optimise the same faces."""

import pytest
import torch

from benchmarks import measure
from benchmarks.measure import judge
from benchmarks.networks import NETWORKS, gflop_per_step
from benchmarks.variants import REFERENCE, VARIANTS

TINY = NETWORKS["tiny"]
STEPS = 3


def batch_of(variant):
    return next((batch for batch in (1, 2) if VARIANTS[variant].supports(TINY, batch, "cpu")), None)


def start(variant, batch):
    run = VARIANTS[variant].start(TINY, range(batch), torch.device("cpu"))
    for _ in range(STEPS):
        run.step()
    return run


@pytest.mark.parametrize("variant", [name for name in VARIANTS if batch_of(name)])
def test_variants_optimise_the_same_faces(variant):
    face = batch_of(variant) - 1
    state, expected = (start(name, face + 1).state(face) for name in (variant, REFERENCE))
    tolerance = 1e-2 if VARIANTS[variant].dtype_on(torch.device("cpu")) == "bfloat16" else 1e-3
    assert state.similarity == pytest.approx(expected.similarity, abs=tolerance)
    torch.testing.assert_close(state.latent, expected.latent, rtol=0, atol=0.05)
    assert [level.shape for level in state.noise] == [level.shape for level in expected.noise]


def test_graphs_are_measured_on_cuda_alone():
    graphs = VARIANTS["compiled, bfloat16, CUDA graphs"]
    assert [graphs.supports(TINY, 1, device) for device in ("cpu", "cuda", "cuda:1")] == [False, True, True]


def test_quality_is_judged_by_float32_networks():
    similarity, pixels = judge(TINY.load(), start("eager, bfloat16", 1).state(0), 0)
    _, expected = judge(TINY.load(), start(REFERENCE, 1).state(0), 0)
    assert -1 <= similarity <= 1
    assert pixels.shape == (64, 64, 3)
    assert pixels.std() > 1
    assert abs(pixels.astype(int) - expected).mean() < 2


def test_time_measures_speed_and_memory(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(measure, "MATRIX_SIZE", 64)
    try:
        found = measure.time("tiny", REFERENCE, batch=1, warm_up=1, steps=1, device="cpu")
    finally:
        torch.set_num_threads(before)
    assert found["seconds"] > 0
    assert found["machine"]["device"] == "cpu"
    assert found["peak_resident_mib"] > 50
    assert found["peak_cuda_mib"] is None
    assert set(found["matmul_gflops"]) == {"float32", "bfloat16"}


def test_operations_of_a_step_are_counted():
    # The face encoder by hand: images of 64 pixels, so features of 16, 8, 4 and 2 pixels, one block each.
    stem = 32**2 * 4 * 3 * 49
    blocks = 16**2 * 2 * 4 * 4 * 9 + 8**2 * 9 * (4 * 4 + 4 * 4) + 8**2 * 4 * 4
    blocks += 4**2 * 9 * (4 * 8 + 8 * 8) + 4**2 * 4 * 8 + 2**2 * 9 * (8 * 8 + 8 * 8) + 2**2 * 8 * 8
    encoder = 2 * 2 * (stem + blocks) / 1e9
    # Of the generator the convolutions alone: 12 channels everywhere; upsampling ones work on a map of half the size.
    sizes = (8, 16, 32, 64)
    plain = 9 * 144 * (4**2 + sum(size**2 for size in sizes)) + 9 * 144 * sum((size // 2) ** 2 for size in sizes)
    convolutions = 2 * 2 * plain / 1e9
    assert encoder + convolutions < gflop_per_step("tiny") < 1.5 * (encoder + convolutions)
