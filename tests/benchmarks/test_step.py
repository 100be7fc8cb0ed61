"""The rows of the step's benchmark, from measurements that are made up."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import processes, quality, step
from benchmarks.processes import MeasurementError
from benchmarks.variants import BASELINE, REFERENCE, VARIANTS

MACHINE = {"commit": "c", "load_average": 0.5}


@pytest.fixture
def measured(monkeypatch):
    """Measurements of pretence, and the order in which they were asked for; one variant always fails."""
    asked = []

    def measure(module, arguments, environment):
        words = [str(word) for word in arguments]
        variant, batch = words[words.index("--variant") + 1], int(words[words.index("--batch") + 1])
        asked.append((variant, batch))
        if variant == "compiled":
            raise MeasurementError("RuntimeError: no")
        assert environment == VARIANTS[variant].environment
        return {
            "machine": MACHINE | {"load_average": len(asked)},
            "seconds": 0.1 * batch * len(asked),
            "peak_resident_mib": 100 + len(asked),
            "peak_cuda_mib": None,
            "matmul_gflops": {"float32": 100.0, "bfloat16": 200.0},
        }

    monkeypatch.setattr(step, "measure", measure)
    monkeypatch.setattr(step, "gflop_per_step", lambda _: 4.0)
    return asked


def run(*arguments):
    chosen = ["--subject", "tiny", "--variant", REFERENCE, "--variant", "compiled", "--variant", BASELINE]
    return CliRunner().invoke(step.main, [*chosen, *arguments], catch_exceptions=False)


def test_rows(measured, tmp_path):
    run("--repeats", "3", "--batch", "1", "--batch", "2", "--output", str(tmp_path / "rows.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["variant"], row["batch"]) for row in rows] == [
        (REFERENCE, 1), ("compiled", 1), (BASELINE, 1), (REFERENCE, 2), ("compiled", 2),
    ]  # fmt: skip
    # In turns, and a variant that failed is not tried again.
    first = [(REFERENCE, 1), ("compiled", 1), (BASELINE, 1), (REFERENCE, 2), ("compiled", 2)]
    rest = [(REFERENCE, 1), (BASELINE, 1), (REFERENCE, 2)]
    assert measured == first + rest + rest

    eager = rows[0]
    assert eager["ms_per_step"] == {"median": 600.0, "min": 100.0, "max": 900.0}
    assert eager["faces_per_minute"] == 1.0
    assert eager["gflops"] == pytest.approx(4 / 0.6, rel=1e-3)
    assert eager["share_of_matmul"] == {"float32": 0.0667, "bfloat16": 0.0333}
    assert eager["machine"]["load_average"] == 9
    assert eager["peak_resident_mib"] == 109
    assert eager["repeats"] == 3
    double = rows[3]
    assert double["ms_per_step_and_face"]["median"] == double["ms_per_step"]["median"] / 2
    assert rows[1]["error"] == "RuntimeError: no"
    assert "ms_per_step" not in rows[1]
    assert rows[1]["machine"]["commit"]


def test_a_quick_look_writes_nothing(measured, tmp_path):
    result = run("--quick", "--output", str(tmp_path / "rows.jsonl"))
    assert measured == [(REFERENCE, 1), ("compiled", 1), (BASELINE, 1)]
    assert "tiny, compiled, batch 1: RuntimeError: no" in result.output
    assert not (tmp_path / "rows.jsonl").exists()


def test_quality_is_that_of_every_variant_against_the_reference(measured, monkeypatch, tmp_path):
    pixels = np.full((8, 8, 3), 100, np.uint8)

    def make(subject, variant, face, options, folder):
        return quality.Made(0.5 if variant == REFERENCE else 0.49, pixels + (variant != REFERENCE))

    monkeypatch.setattr(quality, "make", make)
    run("--repeats", "1", "--batch", "1", "--quality", "2", "--output", str(tmp_path / "rows.jsonl"))
    eager, compiled, published = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert eager["quality"]["worst_psnr_db"] is None
    assert published["quality"] == {
        "faces": 2,
        "similarity": 0.49,
        "reference_similarity": 0.5,
        "largest_difference": -0.01,
        "worst_psnr_db": 48.13,
    }
    assert "quality" not in compiled


def test_a_process_that_fails_says_why():
    with pytest.raises(MeasurementError, match="No module named benchmarks.none"):
        processes.measure("benchmarks.none", [])
