"""Sex agreement, the judge's output, skin luminance, the figure."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from voicestyle.evaluation.agreement import Agreement
from voicestyle.evaluation.figure import write_figure
from voicestyle.evaluation.generate import FacePair, generate_pairs
from voicestyle.evaluation.held_out import held_out_speakers
from voicestyle.evaluation.judge import JudgeError, Judgement, install_judge, judge_faces
from voicestyle.evaluation.skin import skin_luminance
from voicestyle.face import Face
from voicestyle.offline import generate_face
from voicestyle.options import Options, Settings
from voicestyle.pipeline import Pipeline

ROOT = Path(__file__).parents[2]


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def face(light: int) -> Face:
    return Face(
        image=png(np.full((64, 64, 3), light)),
        settings=Settings(steps=1, seed=0, size=64),
        trace=[0.5],
        prototypes=[0],
        largest_batch=1,
        audio_seconds=1.0,
        speech_seconds=1.0,
        timings={},
    )


def test_agreement_counts_speakers_and_judged_faces():
    agreement = Agreement.of(["F", "F", "F", "M"], ["F", "M", "F", "M"])
    assert agreement.table == {"F": {"F": 2, "M": 1}, "M": {"F": 0, "M": 1}}
    assert agreement.share == 0.75
    assert "agreement 75.0%" in str(agreement)
    with pytest.raises(ValueError, match="one face, received 1 and 0"):
        Agreement.of(["F"], [])


@pytest.fixture
def fake_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`fake_command(name, script)`: put a shell script of that name first on PATH."""

    def write(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    return write


def test_judgements_come_in_the_order_of_the_faces(tmp_path: Path, fake_command):
    rows = '[{"sex": "M", "probability": 0.98712, "age": 31.44}, {"sex": "F", "probability": 0.6, "age": 50}]'
    fake_command("node", f"test $1 = judge.mjs || exit 1; echo '{rows}'")
    faces = [Path("b.png"), Path("a.png")]
    assert judge_faces(tmp_path, faces) == [Judgement("M", 0.987, 31.4), Judgement("F", 0.6, 50.0)]
    with pytest.raises(JudgeError, match="all 3 faces; got 2 judgements"):
        judge_faces(tmp_path, [*faces, Path("c.png")])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no such model >&2; exit 1", "node judge.mjs failed in .*no such model"),
        ("echo warning", "must print a JSON array of judgements; got 'warning"),
        ("""echo '[{"sex": "F"}]'""", "must print a JSON array of judgements"),
        ("""echo '[{"sex": "F", "probability": null, "age": 3}]'""", "must print a JSON array of judgements"),
    ],
)
def test_a_failing_judge_is_one_error(tmp_path: Path, fake_command, script: str, message: str):
    fake_command("node", script)
    with pytest.raises(JudgeError, match=message):
        judge_faces(tmp_path, [Path("a.png")])


def test_a_judge_without_node_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JudgeError, match=r"needs node \(Node.js\) on PATH"):
        judge_faces(tmp_path, [])


def test_install_copies_the_program_and_runs_npm(tmp_path: Path, fake_command):
    fake_command("npm", "echo $1 > called")
    install_judge(ROOT / "scripts" / "face_judge", tmp_path / "judge")
    assert (tmp_path / "judge" / "called").read_text() == "install\n"
    assert (tmp_path / "judge" / "judge.mjs").is_file()
    versions = json.loads((tmp_path / "judge" / "package.json").read_text())["dependencies"].values()
    assert all(version[0].isdigit() for version in versions)  # pinned
    fake_command("npm", "echo no network >&2; exit 1")
    with pytest.raises(JudgeError, match="npm install failed in .*no network"):
        install_judge(ROOT / "scripts" / "face_judge", tmp_path / "judge")


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("npm") and shutil.which("node")), reason="needs Node.js with npm")
def test_the_real_judge_tells_women_from_men(tmp_path: Path):
    """The first faces of docs/images/first_last.jpg: four women in the first row, four men in the second.

    The first woman's face is the one of 40 that the judge takes for a man (MODEL_CARD.md).
    """
    install_judge(ROOT / "scripts" / "face_judge", tmp_path)
    faces = []
    with Image.open(ROOT / "docs" / "images" / "first_last.jpg") as sheet:
        for i in range(8):
            left, top = i % 4 * 336, i // 4 * 176
            faces.append(tmp_path / f"{i}.png")
            sheet.crop((left, top, left + 160, top + 160)).save(faces[-1])
    judged = judge_faces(tmp_path, faces)
    assert "".join(judgement.sex for judgement in judged) == "MFFFMMMM"
    assert all(judgement.probability > 0.5 and 15 < judgement.age < 80 for judgement in judged)


def test_a_first_face_is_the_face_before_the_optimisation(tiny_bundle, samples):
    voices = [samples / "slt.wav", samples / "rms.wav", samples / "awb.wav"]
    pipeline = Pipeline.load(tiny_bundle, capacity=2)
    pairs = generate_pairs(pipeline, voices, iter, steps=4, size=32)
    assert len({pair.last.image for pair in pairs}) == 3
    for voice, pair in zip(voices, pairs, strict=True):
        assert pair.last.trace == generate_face(pipeline, voice, Options(steps=4, seed=0, size=32)).trace
        assert pair.first.trace == pair.last.trace[:1]
        assert (pair.first.settings.steps, pair.last.settings.steps) == (1, 4)
        assert pair.first.image != pair.last.image


def test_skin_luminance_uses_the_middle_of_the_face():
    pixels = np.zeros((100, 100, 3))
    pixels[50:66, 33:67] = (200, 100, 50)
    assert skin_luminance(png(pixels)) == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50, abs=1)


def test_a_missing_held_out_recording_is_an_error(tmp_path: Path):
    row = {"file": "a.flac", "speaker": "7", "sex": "F"}
    (tmp_path / "encoders.json").write_text(json.dumps({"held_out": [row]}))
    with pytest.raises(FileNotFoundError, match=r"a\.flac"):
        held_out_speakers(tmp_path, tmp_path)
    (tmp_path / "a.flac").touch()
    assert held_out_speakers(tmp_path, tmp_path)[0].speaker == "7"


def test_the_figure_puts_first_faces_left_of_last_faces(tmp_path: Path):
    write_figure(tmp_path / "figure.jpg", [FacePair(face(0), face(255))] * 8, edge=40)
    sheet = np.asarray(Image.open(tmp_path / "figure.jpg").convert("L"))
    assert sheet.shape == (2 * 44 - 4, 4 * 84 - 4)
    assert sheet[20, 20] < 10
    assert sheet[20, 60] > 245
