"""The tables of docs/benchmarks.md."""

import json

import pytest

from benchmarks.results import RESULTS
from benchmarks.tables import PAGE, rendered

MARKERS = "<!-- table step full -->\nold\n<!-- end of table -->"
MACHINE = {
    "device_name": "a machine",
    "threads": 2,
    "cores": 2,
    "torch_version": "2",
    "commit": "c0ffee",
    "date": "2026-01-02T03:04:05",
    "load_average": 0.25,
}
ROW = {
    "networks": "full",
    "variant": "eager",
    "batch": 1,
    "dtype": "float32",
    "error": None,
    "machine": MACHINE,
    "ms_per_step": {"median": 2000.0, "min": 1900.0, "max": 2500.0},
    "ms_per_step_and_face": {"median": 2000.0, "min": 1900.0, "max": 2500.0},
    "faces_per_minute": 0.3,
    "peak_resident_mib": 1500,
    "peak_cuda_mib": None,
    "gflops": 100.3,
    "share_of_matmul": {"float32": 0.61, "bfloat16": 0.3},
    "quality": None,
}


@pytest.fixture
def cells(tmp_path):
    """`cells(*rows)`: the table of step.jsonl as lists of cells."""

    def render(*rows):
        (tmp_path / "step.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines = [line for line in rendered(MARKERS, tmp_path).splitlines() if line.startswith("| ")]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    return render


def test_the_page_shows_the_results():
    text = PAGE.read_text(encoding="utf-8")
    assert text == rendered(text, RESULTS), "`python -m benchmarks.tables` writes the results into the page"


def test_a_variant_that_is_timed_again_keeps_its_quality(cells):
    quality = {"similarity": 0.5, "largest_difference": -0.001, "worst_psnr_db": 31.52}
    again = ROW | {"faces_per_minute": 0.4}
    _, first, second = cells(ROW | {"quality": quality}, again | {"batch": 4}, again)
    assert first[5] == second[5] == "0.4"
    assert first[-2:] == ["0.5000 (-0.0010)", "31.5"]
    assert second[-2:] == ["–", "–"]


def test_a_row_shows_speed_and_memory(cells):
    header, *rows = cells(ROW, ROW | {"networks": "demo", "variant": "other"})
    assert header[:3] == ["variant", "batch", "ms a step"]
    assert rows == [
        ["eager", "1", "2000 (1900–2500)", "2000", "–", "0.3", "1500", "100", "61% of float32", "–", "–"],
    ]  # fmt: skip


def test_text_around_a_table_stays(tmp_path):
    (tmp_path / "step.jsonl").write_text(json.dumps(ROW) + "\n")
    text = rendered(f"before\n{MARKERS}\nafter", tmp_path)
    assert text.startswith("before\n<!-- table step full -->\n| variant ")
    assert text.endswith("<!-- end of table -->\nafter")
    assert "*a machine, 2 threads on 2 cores, torch 2, commit c0ffee, 2026-01-02; load average at most 0.2" in text
    assert "old" not in text


def test_speed_is_compared_on_the_same_hardware(cells):
    published = ROW | {"variant": "published loop", "ms_per_step_and_face": {"median": 9000.0}}
    alone = ROW | {"machine": MACHINE | {"threads": 1}, "variant": "alone"}
    _, first, second, third = cells(published, ROW, alone)
    assert (first[4], second[4], third[4]) == ("1", "4.5", "–")


def test_the_last_row_of_the_same_measurement_counts(cells):
    quality = {"similarity": 0.5, "largest_difference": -0.001, "worst_psnr_db": 31.52}
    _, first, second = cells(ROW, ROW | {"batch": 4}, ROW | {"quality": quality})
    assert (first[1], first[-2:]) == ("1", ["0.5000 (-0.0010)", "31.5"])
    assert (second[1], second[-2:]) == ("4", ["–", "–"])


def test_a_failed_row_stays_in_the_table(cells):
    failed = {key: ROW[key] for key in ("networks", "variant", "batch", "dtype", "machine")}
    _, row = cells(failed | {"error": "TypeError: a | b"})
    assert row == ["eager", "1", *["–"] * 8, "failed: TypeError: a / b"]


def test_a_table_without_rows_says_so(tmp_path):
    assert "*Not measured yet.*" in rendered(MARKERS, tmp_path)
