"""Counting agreement, reading the judge, measuring skin, drawing the figure."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from voicestyle.evaluation.agreement import Agreement
from voicestyle.evaluation.figure import write_figure
from voicestyle.evaluation.generate import FacePair
from voicestyle.evaluation.held_out import held_out_speakers
from voicestyle.evaluation.judge import JudgeError, Judgement, judge_faces, parse_judgements
from voicestyle.evaluation.skin import skin_luminance
from voicestyle.face import Face


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def face(light: int) -> Face:
    return Face(png(np.full((64, 64, 3), light)), "png", [0.5], 0, 1, "default", 64, [0], 1, 1.0, 1.0, {})


def test_agreement_counts_speakers_by_the_sex_of_their_face():
    agreement = Agreement.of(["F", "F", "F", "M"], ["F", "M", "F", "M"])
    assert agreement.table == {"F": {"F": 2, "M": 1}, "M": {"F": 0, "M": 1}}
    assert agreement.share == 0.75
    assert "agreement 75.0%" in str(agreement)
    with pytest.raises(ValueError, match="one face, received 1 and 0"):
        Agreement.of(["F"], [])


def test_the_judges_lines_are_read_by_file_name():
    text = "warning: something\nmy face.png female 0.987 31.4\nb.png male 0.601 50.0\n"
    assert parse_judgements(text) == {
        "my face.png": Judgement("F", 0.987, 31.4),
        "b.png": Judgement("M", 0.601, 50.0),
    }


def test_a_judge_that_is_not_installed_is_an_error(tmp_path: Path):
    with pytest.raises(JudgeError, match="after npm install"):
        judge_faces(tmp_path, [])


def installed_judge(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """A folder that looks installed, and a `node` that runs a shell script instead."""
    (folder / "node_modules").mkdir()
    (folder / "judge.cjs").touch()
    node = folder / "node"
    node.write_text(f"#!/bin/sh\n{script}\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_judgements_come_in_the_order_of_the_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    judge = installed_judge(tmp_path, monkeypatch, 'echo "b.png male 0.9 40"; echo "a.png female 0.8 30"')
    assert [each.sex for each in judge_faces(judge, [Path("a.png"), Path("b.png")])] == ["F", "M"]
    with pytest.raises(JudgeError, match=r"left out c\.png"):
        judge_faces(judge, [Path("c.png")])


def test_a_judge_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    judge = installed_judge(tmp_path, monkeypatch, "echo no such model >&2; exit 1")
    with pytest.raises(JudgeError, match="no such model"):
        judge_faces(judge, [Path("a.png")])


def test_skin_luminance_looks_at_the_middle_alone():
    pixels = np.zeros((100, 100, 3))
    pixels[50:66, 33:67] = (200, 100, 50)
    assert skin_luminance(png(pixels)) == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50, abs=1)


def test_held_out_recordings_must_be_there(tmp_path: Path):
    row = {"file": "a.flac", "speaker": "7", "sex": "F"}
    (tmp_path / "encoders.json").write_text(json.dumps({"held_out": [row]}))
    with pytest.raises(FileNotFoundError, match=r"a\.flac"):
        held_out_speakers(tmp_path, tmp_path)
    (tmp_path / "a.flac").touch()
    assert held_out_speakers(tmp_path, tmp_path)[0].speaker == "7"


def test_the_figure_shows_first_faces_left_and_last_faces_right(tmp_path: Path):
    write_figure(tmp_path / "figure.jpg", [FacePair(face(0), face(255))] * 8, edge=40)
    sheet = np.asarray(Image.open(tmp_path / "figure.jpg").convert("L"))
    assert sheet.shape == (2 * 44 - 4, 4 * 84 - 4)
    assert sheet[20, 20] < 10
    assert sheet[20, 60] > 245
