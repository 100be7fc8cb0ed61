"""The rows of the step's benchmark, from scripted measurements."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import results, step
from benchmarks.results import MeasurementError
from benchmarks.variants import BASELINE, REFERENCE, VARIANTS

MACHINE = {
    "device_name": "a machine",
    "threads": 1,
    "cores": 1,
    "torch_version": "2",
    "commit": "c",
    "date": "2026-01-02",
    "load_average": 0.5,
}


@pytest.fixture
def measured(monkeypatch):
    """The scripted measurements in their order; the variant "compiled" always fails."""
    calls = []

    def run_process(module, function, environment, *, variant, **arguments):
        assert module == "benchmarks.measure"
        assert environment == VARIANTS[variant].environment
        if function == "quality":
            differs = variant != REFERENCE
            np.save(arguments["image"], np.full((8, 8, 3), 100 + differs, np.uint8))
            return {"similarity": 0.49 if differs else 0.5}
        calls.append((variant, arguments["batch"]))
        if variant == "compiled":
            raise MeasurementError("RuntimeError: no")
        return {
            "machine": MACHINE | {"load_average": len(calls)},
            "steps": arguments["steps"],
            "seconds": 0.1 * arguments["batch"] * len(calls),
            "peak_resident_mib": 100 + len(calls),
            "peak_cuda_mib": None,
            "dtype": "float32",
            "matmul_gflops": {"float32": 100.0, "bfloat16": 200.0},
        }

    monkeypatch.setattr(step, "run_process", run_process)
    monkeypatch.setattr(step, "gflop_per_step", lambda _: 4.0)
    return calls


@pytest.fixture
def run(tmp_path):
    def invoke(*arguments):
        chosen = ["--networks", "tiny", "--variant", REFERENCE, "--variant", "compiled", "--variant", BASELINE]
        result = CliRunner().invoke(
            step.main, [*chosen, "--results", str(tmp_path), *arguments], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return results.read(tmp_path / "step.jsonl"), result.output

    return invoke


def test_rows_of_repeated_measurements(measured, run):
    rows, _ = run("--repeats", "3", "--batch", "1", "--batch", "2")
    assert [(row["variant"], row["batch"]) for row in rows] == [
        (REFERENCE, 1), ("compiled", 1), (BASELINE, 1), (REFERENCE, 2), ("compiled", 2),
    ]  # fmt: skip
    # All of them once, then all of them again; a variant that failed is not measured again.
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
    assert (eager["repeats"], eager["steps_per_repeat"]) == (3, 3)
    double = rows[3]
    assert double["ms_per_step_and_face"]["median"] == double["ms_per_step"]["median"] / 2
    assert rows[1]["error"] == "RuntimeError: no"
    assert "ms_per_step" not in rows[1]
    assert rows[1]["machine"]["commit"]


def test_quick_prints_a_table_and_writes_nothing(measured, run):
    rows, output = run("--quick")
    assert measured == [(REFERENCE, 1), ("compiled", 1), (BASELINE, 1)]
    assert "failed: RuntimeError: no" in output
    assert "| eager" in output
    assert rows == []


def test_quality_is_compared_with_the_reference(measured, run):
    (eager, compiled, published), _ = run("--repeats", "1", "--batch", "1", "--quality", "2")
    assert eager["quality"]["worst_psnr_db"] is None
    assert published["quality"] == {
        "faces": 2,
        "similarity": 0.49,
        "reference_similarity": 0.5,
        "largest_difference": -0.01,
        "worst_psnr_db": 48.13,
    }
    assert "quality" not in compiled


def test_a_process_returns_its_result():
    assert results.run_process("json", "loads", {}, s="[1, 2]") == [1, 2]


def test_a_failed_process_reports_its_last_line():
    with pytest.raises(MeasurementError, match="No module named 'benchmarks.none'"):
        results.run_process("benchmarks.none", "f", {})


def test_rows_survive_a_file(tmp_path):
    rows = [{"name": "ä", "values": results.spread([3.0, 1.0, 2.00004])}]
    results.append(tmp_path / "folder" / "rows.jsonl", rows)
    results.append(tmp_path / "folder" / "rows.jsonl", rows)
    assert results.read(tmp_path / "folder" / "rows.jsonl") == rows * 2
    assert rows[0]["values"] == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert json.loads((tmp_path / "folder" / "rows.jsonl").read_text().splitlines()[0])["name"] == "ä"
