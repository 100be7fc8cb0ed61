"""The comparison of schedules: on a tiny bundle, with a scripted judge; its table and its figure."""

import json
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import schedule_figure, schedules
from benchmarks.rows import RESULTS, read
from benchmarks.schedule_table import schedule_table
from benchmarks.schedule_trials import Trials
from voicestyle.engine import Schedule
from voicestyle.evaluation.held_out import HeldOutSpeaker
from voicestyle.evaluation.judge import Judgement


@pytest.fixture(scope="module")
def trials(tiny_bundle, samples):
    return Trials(tiny_bundle, [samples / "slt.wav", samples / "rms.wav"], 12)


def test_a_trial_has_the_similarity_after_every_step(trials):
    quiet = Schedule(noise=0)
    run = trials.run(0, quiet, 8, {0, 4, 8})
    assert len(run.curve) == 9
    assert len(run.step_milliseconds) == 8
    # The first step's learning rate is 0, so that only the noise maps are normalised.
    assert run.curve[0] == pytest.approx(run.curve[1], abs=0.01)
    assert run.curve[8] > run.curve[0]
    assert set(run.faces) == {0, 4, 8}
    assert run.faces[0] != run.faces[8]
    again = trials.run(0, quiet, 8, {8})
    assert again.curve == run.curve
    assert again.faces[8] == run.faces[8]


def test_the_last_similarity_is_without_noise(trials):
    loud = Schedule(base_lr=1e-12, noise=0.5, noise_ramp=1)
    curve = trials.run(1, loud, 4, ()).curve
    still = trials.run(1, Schedule(base_lr=1e-12, noise=0), 4, ()).curve
    assert curve[-1] == pytest.approx(still[-1], abs=1e-5)
    assert all(abs(noisy - clean) > 1e-4 for noisy, clean in zip(curve[:-1], still[:-1], strict=True))


def test_speakers_of_the_search_are_none_of_the_comparison():
    held_out = [HeldOutSpeaker(f"{n}.flac", str(n), "FM"[n % 2]) for n in range(40)]
    search, comparison = (schedules.chosen(held_out, which) for which in schedules.SPEAKERS.values())
    assert (len(search), len(comparison)) == (6, 20)
    assert not set(search) & set(comparison)
    for group in (search, comparison):
        assert [speaker.sex for speaker in group] == ["F"] * (len(group) // 2) + ["M"] * (len(group) // 2)


@pytest.mark.parametrize(
    ("curve", "step"),
    [
        ([0.1, 0.1, 0.2, 0.3, 0.4, 0.5], 5),
        ([0.1, 0.1, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3], 6),
        ([0.1, 0.1, 0.05, 0.04, 0.03], 4),
        ([0.1, 0.2], 1),
    ],
)
def test_the_stopping_rule(curve, step):
    assert schedules.stop(curve) == step


def test_candidates_take_a_quarter_of_the_steps():
    assert [each.steps for each in schedules.COMPARISON.values()] == [12, 50, 25, 100]
    assert {each.steps for name, each in schedules.SEARCH.items() if not name.startswith("published")} == {12}


@pytest.fixture
def run(tmp_path, tiny_bundle, samples, monkeypatch):
    """`run(*arguments)` of the command, with a judge that takes every face for a woman's."""
    voices = tmp_path / "voices"
    voices.mkdir()
    speakers = []
    for name, sex in (("slt", "F"), ("rms", "M")):
        shutil.copy(samples / f"{name}.wav", voices)
        speakers.append({"file": f"{name}.wav", "speaker": name, "sex": sex})
    (voices / "encoders.json").write_text(json.dumps({"held_out": speakers}))
    monkeypatch.setattr(schedules, "judge_faces", lambda folder, faces: [Judgement("F", 0.9, 30.0) for _ in faces])
    folders = {"--bundle": tiny_bundle, "--voices": voices, "--judge": voices, "--assets": voices}
    places = {"--output": tmp_path / "rows.jsonl", "--figure": tmp_path / "figure.svg", "--pictures": tmp_path / "png"}

    def call(*arguments):
        options = [str(word) for pair in (folders | places).items() for word in pair]
        result = CliRunner().invoke(schedules.main, [*options, *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return read(tmp_path / "rows.jsonl")

    return call


def test_a_row_for_each_candidate(run, tmp_path):
    rows = run("--speakers", "search", "--candidate", "rate × 4", "--candidate", "rate × 8")
    assert [(row["candidate"], row["steps"], row["voices"]) for row in rows] == [
        ("rate × 4", 12, 2),
        ("rate × 8", 12, 2),
    ]
    first, second = rows
    assert first["schedule"]["base_lr"] == pytest.approx(0.04)
    assert len(first["curve"]) == 13
    assert first["curve"][-1] == pytest.approx(np.mean(first["similarity_of_each"]), abs=2e-4)
    assert second["similarity"] != first["similarity"]
    assert [view["step"] for view in first["shown"]] == [0, 3, 6, 12]
    for view in first["shown"]:
        assert (view["agreement"], view["probability"], view["youngest"]) == (1, 0.5, 30)
    assert first["shown"][0]["skin_change"] == 0
    assert first["shown"][-1]["skin_change"] > 0
    assert len(list((tmp_path / "png" / "rate_×_4").iterdir())) == 8
    assert not (tmp_path / "figure.svg").exists()  # which is of the comparison


def row(candidate, steps, whole, similarity, speakers="comparison"):
    curve = np.linspace(0.4, similarity, steps + 1).tolist()
    view = {"step": steps, "agreement": 19, "probability": 0.9, "skin_change": 12.34}
    machine = {"device_name": "a machine", "threads": 1, "cores": 2, "torch_version": "2", "commit": "c0ffee"}
    return {
        "speakers": speakers,
        "candidate": candidate,
        "steps": steps,
        "whole": whole,
        "voices": 20,
        "similarity": similarity,
        "curve": curve,
        "stopped": {"steps": 9.5, "similarity": 0.49},
        "shown": [view | {"step": 0, "skin_change": 0.0}, view],
        "ms_per_step": {"median": 500.0 if whole == 100 else 100.0, "min": 1, "max": 1000},
        "machine": machine | {"date": "2026-01-02T03:04:05", "load_average": 1.0},
    }


ROWS = [
    row("published, 50", 50, 50, 0.5),
    row("published, 100", 100, 100, 0.6),
    row("fast", 12, 50, 0.502),
    row("fast", 12, 50, 0.504),
    row("other", 12, 50, 0.4, speakers="search"),
]


def test_the_table_compares_with_the_published_schedule_of_as_many_steps(tmp_path):
    (tmp_path / "schedules.jsonl").write_text("".join(json.dumps(each) + "\n" for each in ROWS))
    text = schedule_table("comparison")(tmp_path)
    assert "| fast | 12 | 1.2 | 0.5040 | +0.0040 | 11 | 19 of 20 | 0.900 | 12.3 | 9.5 | 0.4900 |" in text
    assert "| published, 100 | 100 | 10 | 0.6000 | +0.0000 |" in text
    assert text.count("| fast |") == 1
    assert "other" not in text


def test_the_figure_draws_each_schedule_in_each_panel(tmp_path):
    schedule_figure.write(tmp_path / "figure.svg", ROWS)
    root = ElementTree.parse(tmp_path / "figure.svg").getroot()
    lines = [
        path.get("d") for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("stroke-width") == "1.5"
    ]
    assert len(lines) == 4 * 3
    assert sorted({line.count("L") for line in lines}) == [1, 12, 50, 100]
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"published, 50", "published, 100", "fast", "similarity over seconds"} <= texts


def test_the_figure_of_the_documentation_shows_the_results():
    rows = schedule_figure.compared(read(RESULTS / "schedules.jsonl"))
    assert schedule_figure.PATH.read_text(encoding="utf-8") == schedule_figure.drawn(rows)
