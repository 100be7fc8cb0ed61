"""`voicestyle evaluate`, its JSON and its page."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec import structs
from PIL import Image

from tests.evaluation.conftest import NAMES, PER_PERSON, face_path, voice_path
from tests.evaluation.test_generation import FakeRecogniser, fake_judge
from tests.evaluation.test_protocols import pairs_of, trials_of, write_matching, write_retrieval, write_verification
from voicestyle.cli import main
from voicestyle.evaluation import page as pages
from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.page import read_report, write_report

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])

    return call


@pytest.fixture
def lists(tmp_path):
    write_matching(tmp_path / "matching_v2f_U.csv", trials_of("v2f", "U"))
    write_matching(tmp_path / "matching_f2v_G.csv", trials_of("f2v", "G"))
    write_verification(tmp_path / "veriflist_test_random_unseenunheard.txt", pairs_of("U"))
    voices = [(name, voice_path(name, i)) for name in NAMES for i in range(PER_PERSON)]
    faces = [(name, face_path(name, i)) for name in NAMES for i in range(PER_PERSON)]
    write_retrieval(tmp_path, voices, faces)
    return sorted([*tmp_path.glob("matching_*"), *tmp_path.glob("veriflist_*"), *tmp_path.glob("*_20k.csv")])


@pytest.fixture
def stored(tmp_path, vectors):
    """Both .npz files of embeddings."""
    for name, suffix in (("voices", ".wav"), ("faces", ".jpg")):
        keys = [path for path in vectors if path.endswith(suffix)]
        np.savez(tmp_path / f"{name}.npz", keys=np.array(keys), embeddings=np.array([vectors[key] for key in keys]))
    return ("--voices", "voices.npz", "--faces", "faces.npz", "--resamples", "100")


class Page(HTMLParser):
    """Sources and links, and the text, of a page; checks that tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.text, self.open = [], "", []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.long
def test_lists_with_embeddings(run, lists, stored, people_file, tmp_path):
    result = run("recognition", *lists, *stored, "--people", people_file, "--one-to-n", 4, "-o", "out")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    section = report["recognition"]
    assert [(each["group"], each["candidates"]) for each in section["matching"]] == [
        ("G", 2), ("U", 2), ("G", 2), ("N", 2), ("GN", 2), ("U", 3), ("U", 4)
    ]  # fmt: skip
    assert [each["group"] for each in section["verification"]] == ["U", "G", "N", "GN"]
    assert [each["direction"] for each in section["retrieval"]] == ["voice to face", "face to voice"]
    assert section["unusable"] == {}
    assert section["sampling"] == {"resamples": 100, "seed": 0, "confidence": 0.95}
    assert f"AUC {section['verification'][0]['auc']['value']:.3f} [" in result.output
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert len(page.addresses) == 3  # matching, 1:N, ROC
    assert f"{section['matching'][1]['accuracy']['value']:.3f}" in page.text
    assert f"{section['retrieval'][1]['chance']:.3f}" in page.text


@pytest.mark.long
def test_lists_with_folders_and_a_bundle(run, tiny_bundle, samples, tmp_path):
    for name, sample in (("Ann", "slt"), ("Bea", "rms"), ("Cleo", "awb")):
        (tmp_path / "voices" / name).mkdir(parents=True)
        (tmp_path / "faces" / name).mkdir(parents=True)
        shutil.copy(samples / f"{sample}.wav", tmp_path / "voices" / name / "1.wav")
        Image.new("RGB", (64, 64), (len(name) * 40, 90, 30)).save(tmp_path / "faces" / name / "1.png")
    lines = ["Ann/1.wav Ann/1.png Bea/1.png", "Bea/1.wav Bea/1.png Cleo/1.png", "Cleo/1.wav Cleo/1.png Gus/1.png"]
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    folders = ("mine.csv", "--voices", "voices", "--faces", "faces", "--resamples", 100)
    result = run("recognition", *folders, "--bundle", tiny_bundle)
    assert result.exit_code == 2
    assert "1 of 3 have not; the face 'Gus/1' in tiny@7 on faces: none was found" in result.stderr
    result = run("recognition", *folders, "--bundle", tiny_bundle, "--skip-missing")
    assert result.exit_code == 0, result.output
    section = read_report(tmp_path / "evaluation").recognition
    assert section is not None
    assert (section.voices, section.faces) == ("tiny@7 on voices", "tiny@7 on faces")
    assert (section.matching[0].trials, section.matching[0].skipped, section.matching[0].group) == (2, 1, None)
    assert (tmp_path / ".cache" / "evaluation").is_dir()
    (tmp_path / "faces" / "Gus").mkdir()
    (tmp_path / "voices" / "Gus").mkdir()
    for name in ("faces/Gus/1.png", "voices/Gus/1.wav"):
        (tmp_path / name).touch()
    (tmp_path / "mine.csv").write_text("\n".join([*lines, "Gus/1.wav Gus/1.png Ann/1.png"]) + "\n")
    result = run("recognition", *folders, "--bundle", tiny_bundle, "--skip-missing")
    assert result.exit_code == 0, result.output
    assert list(read_report(tmp_path / "evaluation").recognition.unusable) == ["voice Gus/1", "face Gus/1"]
    for both in ((), ("--bundle", tiny_bundle, "--cmpc", "x.pth.tar")):
        result = run("recognition", *folders, *both)
        assert result.exit_code == 2
        assert "need the encoders of either --bundle or --cmpc" in result.stderr


def test_usage_errors_are_one_line(run, lists, stored, tmp_path):
    (tmp_path / "bad.csv").write_text("nothing\n")
    for arguments, message in (
        (("bad.csv", *stored), "bad.csv, line 1: must be a known header"),
        (("absent.csv", *stored), "No such file or directory: 'absent.csv'"),
        (
            (tmp_path / "matching_v2f_U.csv", "--voices", "x.npz", "--faces", "faces.npz"),
            "No such file or directory: 'x.npz'",
        ),
        ((next(each for each in lists if "wav_20k" in each.name), *stored), "one list of recordings and one of images"),
    ):
        result = run("recognition", *arguments)
        assert result.exit_code == 2
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
    result = run("recognition", tmp_path / "matching_v2f_U.csv", *stored, "--cmpc", "c.pth.tar")
    assert result.exit_code == 2
    assert "--bundle and --cmpc embed folders" in result.stderr


def test_another_report_is_an_error_before_any_work(run, tmp_path):
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "report.json").write_text("nothing")
    for arguments in (
        ("recognition", "absent.csv", "--voices", "x", "--faces", "x"),
        ("generation", "--voices", "absent"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "report.json must be a report of this version, or be removed" in result.stderr


def test_a_missing_extra_is_named(run, lists, stored, monkeypatch):
    monkeypatch.setattr("voicestyle.cli.evaluate.find_spec", lambda name: None if name == "sklearn" else name)
    result = run("recognition", lists[0], *stored)
    assert result.exit_code == 2
    assert "this command needs sklearn: pip install 'voicestyle[evaluate]'" in result.stderr


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.setattr("voicestyle.face_networks.fetch_mobileface", FakeRecogniser)
    monkeypatch.setattr("voicestyle.evaluation.judge.install_judge", lambda folder: None)
    monkeypatch.setattr("voicestyle.evaluation.judge.judge_faces", lambda folder, faces: fake_judge(faces))


@pytest.fixture
def voices(tmp_path, samples):
    folder = tmp_path / "recordings"
    folder.mkdir()
    rows = [("slt", "F"), ("rms", "M"), ("awb", "M")]
    for name, _ in rows:
        shutil.copy(samples / f"{name}.wav", folder)
    table = ["file,speaker,sex", *(f"{name}.wav,<b>{name}</b>,{sex}" for name, sex in rows)]
    (folder / "speakers.csv").write_text("\n".join(table) + "\n")
    return folder


@pytest.mark.long
def test_generated_faces(run, fakes, voices, tiny_bundle, tmp_path):
    (voices / "bad.wav").write_text("no recording")
    with (voices / "speakers.csv").open("a") as table:
        table.write("bad.wav,bad,F\n")
    arguments = (
        "generation",
        "--voices",
        voices,
        "--bundle",
        tiny_bundle,
        "--steps",
        2,
        "--resamples",
        100,
        "-o",
        "out",
    )
    result = run(*arguments, "--figure", "pairs.jpg", "--sheet", "sheet.jpg", "--sensitivity", "--conditions", "mp3")
    assert result.exit_code == 0, result.output
    assert "skipped bad.wav, half 1: audio must be in a format" in result.stderr
    section = read_report(tmp_path / "out").generation
    assert section is not None
    assert (section.recordings, section.speakers, section.steps, len(section.skipped)) == (6, 3, 2, 2)
    assert (tmp_path / "pairs.jpg").is_file()
    assert (tmp_path / "sheet.jpg").is_file()
    assert section.sensitivity is not None
    assert list(section.conditions.figures) == ["none", "mp3"]
    assert "  mp3  sex agreement" in result.stdout
    text = (tmp_path / "out" / "report.html").read_text()
    page = Page(text)
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert len(page.addresses) == 3 + 2 * 6  # three plots, first and last faces
    assert "<b>" not in text  # names are escaped
    assert "Speaker <b>slt</b> (F)" in page.text
    assert f"{section.faces['last'].consistency.auc.value:.3f}" in page.text
    assert f"{section.sensitivity.background.value:.3f}" in page.text
    assert f"{section.conditions.figures['mp3'].to_clean.value:.3f}" in page.text
    assert "made in the tests" in page.text
    assert "gives the similarity" in page.text
    assert "mean colours: gives consistency" in page.text
    result = run(*arguments, "--no-judge", "--no-halves", "--per-sex", 1, "--speakers", voices / "speakers.csv")
    section = read_report(tmp_path / "out").generation
    assert section is not None
    last = section.faces["last"]
    assert (last.sex, section.recordings, last.consistency, section.conditions) == (None, 2, None, None)


def test_unknown_conditions_are_errors(run, fakes, voices, tiny_bundle):
    result = run("generation", "--voices", voices, "--bundle", tiny_bundle, "--conditions", "mp3,telegraph")
    assert result.exit_code == 2
    assert "--conditions must be all or some of telephone, noise" in result.stderr
    assert "received 'telegraph'" in result.stderr
    result = run("generation", "--voices", voices, "--bundle", tiny_bundle, "--instant")
    assert result.exit_code == 2
    assert "instant faces need a bundle with a mapper (mapper.pt), received tiny@7" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.long
def test_held_out_speakers_need_no_table(run, fakes, tiny_bundle, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("generation", "--voices", "empty", "--held-out", "--bundle", tiny_bundle)
    assert result.exit_code == 2
    assert re.search(r"empty must contain the recording [\d-]+\.flac, and does not", result.stderr)
    result = run("generation", "--voices", "empty", "--held-out", "--speakers", "table.csv")
    assert result.exit_code == 2
    assert "give either --held-out or --speakers" in result.stderr


@pytest.mark.long
def test_each_command_keeps_the_section_of_the_other(run, lists, stored, fakes, voices, tiny_bundle, tmp_path):
    generation = ("generation", "--voices", voices, "--bundle", tiny_bundle, "--steps", 1, "--resamples", 100)
    assert run("recognition", *lists, *stored).exit_code == 0
    assert run(*generation).exit_code == 0
    report = read_report(tmp_path / "evaluation")
    assert report.recognition is not None
    assert report.generation is not None
    shutil.rmtree(tmp_path / "evaluation" / "faces")
    assert run("recognition", "matching_v2f_U.csv", *stored).exit_code == 0
    report = read_report(tmp_path / "evaluation")
    assert report.generation is not None
    assert "Generated faces" in (tmp_path / "evaluation" / "report.html").read_text()  # without the removed images


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "must be a report of this version, or be removed"),
        (b"nothing", "must be a report of this version"),
        (b'{"voicestyle": "1", "format": 7}', "must be of format 2, or be removed, received format 7"),
    ],
)
def test_another_report_is_not_overwritten(tmp_path, content, message):
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(EvaluationError, match=message):
        write_report(tmp_path)
    assert (tmp_path / "report.json").read_bytes() == content


def test_every_field_of_the_json_is_documented():
    text = (ROOT / "docs" / "evaluation.md").read_text()
    documented = set(re.findall(r"`(\w+)`", text))
    from voicestyle.evaluation import report

    kinds = [value for value in vars(report).values() if isinstance(value, type) and issubclass(value, structs.Struct)]
    assert len(kinds) > 12
    missing = {field for kind in kinds for field in kind.__struct_fields__} - documented
    assert not missing


def test_the_template_is_part_of_the_package():
    assert (ROOT / "voicestyle" / "assets" / "evaluation" / pages.TEMPLATE).is_file()
