"""`scripts/train_demo.py`: what is wrong with its arguments is one line, before anything is downloaded or drawn."""

import importlib.util
from pathlib import Path

import pytest
from click.testing import CliRunner

from voicestyle.errors import CheckpointError

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_demo.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_demo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def invoke(script, monkeypatch, tmp_path):
    """`invoke(*arguments)`: the exit code and the error's last line; nothing may be fetched or trained."""

    def forbidden(*arguments, **options):
        raise AssertionError("the arguments must be checked first")

    monkeypatch.setattr(script.demo_bundle, "fetch_wheel", forbidden)
    monkeypatch.setattr(script.DemoTraining, "run", forbidden)

    def of(*arguments):
        result = CliRunner().invoke(script.main, ["--work", str(tmp_path / "work"), *arguments])
        assert not isinstance(result.exception, AssertionError)
        assert "Traceback" not in result.output
        errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1
        assert result.output.endswith(errors[0] + "\n")
        return result.exit_code, errors[0]

    return of


def voices_folder(folder, row="a.flac,1,F"):
    (folder / "speakers.csv").write_text(f"file,speaker,sex\n{row}\n")
    (folder / "a.flac").touch()
    return str(folder)


def test_the_voices_are_required(invoke):
    assert invoke() == (2, "Error: Missing option '--voices'.")


def test_a_folder_without_speakers_is_one_line(invoke, tmp_path):
    code, line = invoke("--voices", str(tmp_path))
    assert code == 1
    assert "the folder of voices must contain speakers.csv" in line
    assert str(tmp_path) in line
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.flac,1,X", "sex must be F or M, got 'X' for 1"),
        ("b.flac,1,F", "lists b.flac, which is missing"),
        ("a.flac,1,F\na.flac,1,F", "must list each speaker once"),
    ],
)
def test_an_invalid_table_is_one_line(invoke, tmp_path, row, message):
    code, line = invoke("--voices", voices_folder(tmp_path, row))
    assert code == 1
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (("--faces", "0"), "0 is not in the range 1<=x<="),
        (("--faces", "1000000"), "1000000 is not in the range 1<=x<="),
        (("--faces", "many"), "'many' is not a valid integer"),
        (("--seed", "-1"), "-1 is not in the range x>=0"),
        (("--depth", "3"), "No such option"),
    ],
)
def test_values_out_of_range_are_one_line(invoke, tmp_path, arguments, rule):
    code, line = invoke("--voices", voices_folder(tmp_path), *arguments)
    assert code == 2
    assert rule in line
    assert arguments[0] in line


def test_too_few_speakers_are_one_line(script, tmp_path):
    """Found by the training itself, before it opens the generator's wheel, which does not exist here."""
    arguments = ["--voices", voices_folder(tmp_path), "--work", str(tmp_path / "work"), "--assets", str(tmp_path)]
    result = CliRunner().invoke(script.main, [*arguments, "--wheel", str(tmp_path / "none.whl")])
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("Error: at least 22 speakers of sex F are needed")


def test_a_wheel_that_cannot_be_fetched_is_one_line(script, monkeypatch, tmp_path):
    def fails(folder):
        raise CheckpointError("pip could not get random-face: no network")

    monkeypatch.setattr(script.demo_bundle, "fetch_wheel", fails)
    result = CliRunner().invoke(script.main, ["--voices", voices_folder(tmp_path), "--work", str(tmp_path / "work")])
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "Error: pip could not get random-face: no network"
