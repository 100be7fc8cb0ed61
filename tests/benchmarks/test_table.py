"""The tables of docs/benchmarks.md."""

import json

import pytest

from benchmarks.rows import RESULTS
from benchmarks.table import PAGES, rendered

PLACE = "<!-- table step full -->\nold\n<!-- end of table -->"
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
    "subject": "full",
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


def write(folder, *rows):
    (folder / "step.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_shows_the_results(page):
    text = page.read_text(encoding="utf-8")
    assert text == rendered(text, RESULTS), f"python -m benchmarks.table puts the results into {page.name}"


def test_a_row(tmp_path):
    text = rendered(f"before\n{PLACE}\nafter", write(tmp_path, ROW, ROW | {"subject": "demo", "variant": "other"}))
    assert "| eager | 1 | 2000 (1900–2500) | 2000 | – | 0.3 | 1500 | 100 | 61% of float32 | – | – |" in text
    assert "*a machine, 2 threads on 2 cores, torch 2, commit c0ffee, 2026-01-02; load average at most 0.2" in text
    assert text.startswith("before\n<!-- table step full -->\n| variant | batch |")
    assert text.endswith("<!-- end of table -->\nafter")
    assert "old" not in text
    assert "other" not in text


def test_speed_is_told_against_the_published_loop(tmp_path):
    published = ROW | {"variant": "published loop", "ms_per_step_and_face": {"median": 9000.0}}
    failed = {key: ROW[key] for key in ("subject", "batch", "dtype", "machine")} | {"variant": "published loop"}
    alone = ROW | {"machine": MACHINE | {"threads": 1}, "variant": "alone"}
    text = rendered(PLACE, write(tmp_path, published, failed | {"error": "later"}, ROW, alone))
    assert "| eager | 1 | 2000 (1900–2500) | 2000 | 4.5 |" in text
    assert "| alone | 1 | 2000 (1900–2500) | 2000 | – |" in text


def test_the_front_end(tmp_path):
    row = {
        "variant": "ours",
        "audio_seconds": 9.0,
        "machine": MACHINE,
        "milliseconds": {"median": 5.0, "min": 4.5, "max": 6.0},
        "best_milliseconds": 4.25,
        "times_as_fast_as_plain": {"median": 4.5, "min": 4.0, "max": 5.0},
        "max_difference_to_plain": 6.7e-6,
    }
    (tmp_path / "front_end.jsonl").write_text(json.dumps(row) + "\n")
    text = rendered("<!-- table front end -->\nold\n<!-- end of table -->", tmp_path)
    assert "| ours | 5 (4.5–6) | 4.25 | 4.5 (4–5) | 7e-06 |" in text


def test_the_last_measurement_of_the_same_counts(tmp_path):
    quality = {"similarity": 0.5, "largest_difference": -0.001, "worst_psnr_db": 31.52}
    text = rendered(PLACE, write(tmp_path, ROW, ROW | {"batch": 4}, ROW | {"quality": quality}))
    assert text.count("| eager | 1 |") == 1
    assert "0.5000 (-0.0010) | 31.5 |" in text
    assert "| eager | 4 |" in text


def test_a_failure_stays_in_the_table(tmp_path):
    failed = {key: ROW[key] for key in ("subject", "variant", "batch", "dtype", "machine")}
    text = rendered(PLACE, write(tmp_path, failed | {"error": "TypeError: a | b"}))
    assert "| eager | 1 | – | – | – | – | – | – | – | – | failed: TypeError: a / b |" in text


def test_nothing_measured(tmp_path):
    assert "*Not measured yet.*" in rendered(PLACE, tmp_path)
