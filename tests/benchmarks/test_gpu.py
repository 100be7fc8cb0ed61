"""The measurement of a GPU, tried on the CPU: refusals, rows, tables, and a whole run with tiny networks."""

from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu, pipeline_run, results, step
from benchmarks.results import MeasurementError
from benchmarks.tables import gpu_pipeline_table, gpu_step_table

MACHINE = {
    "device_name": "NVIDIA H100",
    "threads": 1,
    "cores": 8,
    "torch_version": "2.13.0",
    "commit": "c0ffee",
    "date": "2026-01-02T03:04:05",
    "load_average": 0.25,
}
FOUND = {
    "machine": MACHINE,
    "computing": {
        "device": "cuda:0", "dtype": "bfloat16", "batching": "batched", "graphs": "on", "capacity": 16,
    },
    "start_seconds": 12.34567,
    "join": [{"seconds": 0.02, "preparation": 0.008}, {"seconds": 0.03, "preparation": 0.009}],
    "soak": {"seconds": 180.0, "faces": 900, "steps": 90000, "memory_mib": 900.0, "growth_mib": 0.04},
    "peak_resident_mib": 2500.4,
    "peak_cuda_mib": 7000.6,
}  # fmt: skip


@pytest.fixture
def measured(monkeypatch):
    """Scripted processes: the step takes 10 ms, and half of it as graphs; the pipeline is the one above."""
    calls = []

    def run_process(module, function, environment, **arguments):
        calls.append((module, function, arguments))
        if module == "benchmarks.pipeline_run":
            return FOUND
        return {
            "machine": MACHINE,
            "dtype": "bfloat16" if "bfloat16" in arguments["variant"] else "float32",
            "steps": arguments["steps"],
            "seconds": 0.005 if "graphs" in arguments["variant"] else 0.01,
            "peak_resident_mib": 1000,
            "peak_cuda_mib": 300.0,
            "matmul_gflops": {"float32": 50_000.0, "bfloat16": 600_000.0},
        }

    for module in (gpu, step):
        monkeypatch.setattr(module, "run_process", run_process)
    monkeypatch.setattr(step, "gflop_per_step", lambda _: 200.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return calls


def invoke(*arguments):
    return CliRunner().invoke(gpu.main, arguments, catch_exceptions=False)


def test_without_a_gpu_it_refuses_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for more in ([], ["--check"]):
        result = invoke("--results", str(tmp_path), *more)
        assert result.exit_code == 2
        assert result.output.startswith("error: a CUDA device is needed, but torch 2.")
        assert result.output.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_check_measures_nothing(measured):
    assert invoke("--check").exit_code == 0
    assert not measured


def test_rows_of_the_step_with_and_without_graphs_and_of_the_pipeline(measured, tmp_path):
    result = invoke("--batch", "1", "--batch", "16", "--repeats", "2", "--results", str(tmp_path))
    assert result.exit_code == 0, result.output
    rows = results.read(tmp_path / "gpu.jsonl")
    steps, (pipeline,) = rows[:-1], rows[-1:]
    graphs = {"compiled, bfloat16, CUDA graphs", "compiled, bfloat16", "compiled, CUDA graphs", "compiled"}
    assert [{row["variant"] for row in steps if row["batch"] == batch} for batch in (1, 16)] == [
        graphs | {"published loop"},
        graphs,
    ]
    assert all(row["repeats"] == 2 for row in steps)
    (best,) = [row for row in steps if row["variant"] == "compiled, bfloat16, CUDA graphs" and row["batch"] == 16]
    assert best["faces_per_minute"] == pytest.approx(60 * 16 / (100 * 0.005))
    assert best["share_of_matmul"]["bfloat16"] == pytest.approx(16 * 200 / 0.005 / 600_000, rel=0.01)

    assert measured[-1] == (
        "benchmarks.pipeline_run",
        "run",
        {
            "networks": "full", "device": "cuda:0", "dtype": "auto", "capacity": None, "joins": 20,
            "soak_seconds": 180.0,
        },
    )  # fmt: skip
    assert (pipeline["capacity"], pipeline["graphs"], pipeline["soak_faces"]) == (16, "on", 900)
    assert pipeline["ms_to_first_step"] == {"median": 25.0, "min": 20.0, "max": 30.0}
    assert pipeline["faces_per_second"] == 5.0
    assert (pipeline["memory_growth_mib"], pipeline["peak_cuda_mib"]) == (0.0, 7001)
    assert "| full       | bfloat16 | on " in result.output


def test_the_tables_compare_graphs_with_single_kernels_of_the_same_machine(measured, tmp_path):
    invoke("--batch", "16", "--results", str(tmp_path))
    rows = results.read(tmp_path / "gpu.jsonl")
    lines = [line.strip("|").split("|") for line in gpu_step_table(rows).splitlines() if line.startswith("| full")]
    faster = {cells[1].strip(): cells[4].strip() for cells in lines}
    assert faster == {
        "compiled, bfloat16, CUDA graphs": "2",
        "compiled, bfloat16": "–",
        "compiled, CUDA graphs": "2",
        "compiled": "–",
    }
    assert "32" in lines[0][5]  # faces a second
    assert gpu_pipeline_table(rows).count("\n| full") == 1
    assert "25 (20–30)" in gpu_pipeline_table(rows)


def test_a_failed_pipeline_is_a_row_and_an_exit_code(measured, monkeypatch, tmp_path):
    def failing(*_, **arguments):
        raise MeasurementError("torch.OutOfMemoryError: CUDA out of memory")

    monkeypatch.setattr(gpu, "run_process", failing)
    monkeypatch.setattr(gpu, "machine", lambda device: MACHINE)
    result = invoke("--batch", "16", "--repeats", "1", "--results", str(tmp_path))
    assert result.exit_code == 1
    assert "failed: torch.OutOfMemoryError: CUDA out of memory" in result.output
    assert results.read(tmp_path / "gpu.jsonl")[-1]["error"] == "torch.OutOfMemoryError: CUDA out of memory"


@pytest.mark.long
def test_a_pipeline_is_measured(monkeypatch):
    found = pipeline_run.run("tiny", "float32", capacity=3, joins=2, soak_seconds=2, device="cpu")
    assert found["computing"]["capacity"] == 3
    assert found["computing"]["dtype"] == "float32"
    assert len(found["join"]) == 2
    assert all(0 < each["preparation"] < each["seconds"] for each in found["join"])
    assert found["soak"]["faces"] >= 1
    assert found["soak"]["seconds"] >= 2
    row = gpu.pipeline_row("tiny", found)
    assert row["faces_per_second"] > 0
    assert row["peak_cuda_mib"] is None


def test_a_soak_finds_faces_that_do_not_change(monkeypatch):
    class Face:
        trace = (0.5, 0.5, 0.5)
        similarity = 0.5

    monkeypatch.setattr(pipeline_run, "generate_faces", lambda *_: iter([("7", Face)]))
    manifest = SimpleNamespace(limits=SimpleNamespace(steps=5))
    pipeline = SimpleNamespace(manifest=manifest, device=torch.device("cpu"))
    with pytest.raises(RuntimeError, match=r"face 7 of the soak has the similarities \(0.5, 0.5, 0.5\)"):
        pipeline_run.soak(pipeline, [b"voice"], 1.0)


@pytest.mark.long
def test_the_whole_command_runs_with_tiny_networks_on_the_cpu(tmp_path):
    chosen = ["--device", "cpu", "--networks", "tiny", "--variant", "compiled", "--batch", "2", "--dtype", "float32"]
    short = ["--repeats", "1", "--warm-up", "1", "--steps", "1", "--capacity", "2", "--joins", "1", "--soak", "1"]
    result = invoke(*chosen, *short, "--results", str(tmp_path))
    assert result.exit_code == 0, result.output
    rows = results.read(tmp_path / "gpu.jsonl")
    assert [(row["benchmark"], row["error"]) for row in rows] == [("step", None), ("gpu pipeline", None)]
    assert rows[0]["variant"] == "compiled"
    assert rows[1]["soak_faces"] >= 1
