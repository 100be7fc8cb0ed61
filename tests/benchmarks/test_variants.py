"""Every variant takes steps, and they all optimise the same faces."""

import json

import pytest
import torch
from click.testing import CliRunner

from benchmarks import machine
from benchmarks.measure import judge, main
from benchmarks.subjects import SUBJECTS, gflop_per_step
from benchmarks.variants import REFERENCE, VARIANTS

TINY = SUBJECTS["tiny"]
CPU = torch.device("cpu")
STEPS = 3


@pytest.fixture
def threads():
    """The measurements set them for their own process; here they are put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", [name for name in VARIANTS if any(VARIANTS[name].takes(TINY, n, CPU) for n in (1, 2))])
def test_the_same_faces(name):
    variant = VARIANTS[name]
    batch = next(batch for batch in (1, 2) if variant.takes(TINY, batch, CPU))
    faces = {}
    for which in (name, REFERENCE):
        run = VARIANTS[which].start(TINY, range(batch), CPU)
        for _ in range(STEPS):
            run.step()
        faces[which] = run.face(batch - 1)
    tolerance = 1e-2 if variant.dtype == "bfloat16" else 1e-3
    assert faces[name].similarity == pytest.approx(faces[REFERENCE].similarity, abs=tolerance)
    torch.testing.assert_close(faces[name].latent, faces[REFERENCE].latent, rtol=0, atol=0.05)
    assert [level.shape for level in faces[name].noise] == [level.shape for level in faces[REFERENCE].noise]


def test_graphs_are_measured_on_cuda_alone():
    graphs = VARIANTS["compiled, bfloat16, CUDA graphs"]
    assert [graphs.takes(TINY, 1, torch.device(name)) for name in ("cpu", "cuda")] == [False, True]


def test_the_judge_sees_the_final_face():
    networks = TINY.networks()
    run = VARIANTS[REFERENCE].start(TINY, range(1), CPU)
    run.step()
    similarity, pixels = judge(networks, run.face(0), 0)
    assert -1 <= similarity <= 1
    assert pixels.shape == (64, 64, 3)
    assert pixels.std() > 1


def test_a_measurement_prints_what_it_found(threads, monkeypatch):
    monkeypatch.setattr(machine, "MATRIX_SIZE", 64)
    arguments = [
        "--threads",
        "1",
        "time",
        "--subject",
        "tiny",
        "--variant",
        REFERENCE,
        "--warm-up",
        "1",
        "--steps",
        "1",
    ]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    found = json.loads(result.output.splitlines()[-1])
    assert found["seconds"] > 0
    assert found["machine"]["threads"] == 1
    assert found["machine"]["device"] == "cpu"
    assert found["peak_resident_mib"] > 50
    assert found["peak_cuda_mib"] is None
    assert set(found["matmul_gflops"]) == {"float32", "bfloat16"}


def test_counts_a_step_of_a_known_size():
    # By hand, of the face encoder: 64-pixel images, so features of 16, 8, 4 and 2 pixels, one block each.
    stem = 32**2 * 4 * 3 * 49
    blocks = 16**2 * 2 * 4 * 4 * 9 + 8**2 * 9 * (4 * 4 + 4 * 4) + 8**2 * 4 * 4
    blocks += 4**2 * 9 * (4 * 8 + 8 * 8) + 4**2 * 4 * 8 + 2**2 * 9 * (8 * 8 + 8 * 8) + 2**2 * 8 * 8
    encoder = 2 * 2 * (stem + blocks) / 1e9
    # Of the generator the convolutions alone: 12 channels everywhere, upsampling ones on a map of half the size.
    sizes = (8, 16, 32, 64)
    plain = 9 * 144 * (4**2 + sum(size**2 for size in sizes)) + 9 * 144 * sum((size // 2) ** 2 for size in sizes)
    convolutions = 2 * 2 * plain / 1e9
    assert encoder + convolutions < gflop_per_step("tiny") < 1.5 * (encoder + convolutions)
