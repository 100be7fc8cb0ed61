"""The commands `generate` and `serve`, and the help of all commands."""

import io
import json
import shutil
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from voicestyle.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def generate(run, tiny_bundle):
    return lambda *arguments: run("generate", "--bundle", tiny_bundle, *arguments)


def test_generate_writes_face_png(generate, samples, tmp_path):
    result = generate(samples / "slt.wav", "--steps", "4", "--seed", "3", "--report")
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "face.png").size == (64, 64)
    report = json.loads((tmp_path / "face.json").read_text())
    assert (report["steps"], report["seed"], len(report["trace"]), len(report["prototypes"])) == (4, 3, 4, 3)
    assert "similarity" in result.output


def test_a_preset_takes_fewer_steps(generate, samples, tmp_path):
    result = generate(samples / "slt.wav", "--preset", "fast", "--report")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "face.json").read_text())
    assert (report["preset"], report["steps"]) == ("fast", 1)


def test_instant_takes_no_steps(run, mapper_bundle, samples, tmp_path):
    voices = [samples / "slt.wav", samples / "rms.wav"]
    result = run("generate", "--bundle", mapper_bundle, *voices, "--preset", "instant", "--report", "-o", "faces")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "faces" / "slt.json").read_text())
    assert (report["preset"], report["steps"], len(report["trace"])) == ("instant", 0, 1)
    assert f"slt.png  similarity {report['trace'][0]:.3f}\n" in result.output


def test_instant_needs_a_mapper(generate, samples):
    result = generate(samples / "slt.wav", "--preset", "instant")
    assert (result.exit_code, result.output) == (
        2, "voicestyle: preset must be one of default, fast with this bundle, got instant\n",
    )  # fmt: skip


def test_the_suffix_decides_the_format(generate, samples, tmp_path):
    assert generate(samples / "slt.wav", "--steps", "2", "-o", "face.webp").exit_code == 0
    assert Image.open(tmp_path / "face.webp").format == "WEBP"


def test_several_voices_share_a_batch(generate, samples, tmp_path):
    voices = [samples / f"{name}.wav" for name in ("slt", "rms", "awb")]
    assert generate(*voices, "--batch", "2", "--size", "32", "--report", "-o", "faces").exit_code == 0
    reports = [json.loads((tmp_path / "faces" / f"{voice.stem}.json").read_text()) for voice in voices]
    assert [report["largest_batch"] for report in reports[:2]] == [2, 2]
    assert generate(voices[1], "--size", "32", "-o", "alone.png").exit_code == 0
    alone, batched = ((tmp_path / name).read_bytes() for name in ("alone.png", "faces/rms.png"))
    assert Image.open(io.BytesIO(alone)).size == Image.open(io.BytesIO(batched)).size == (32, 32)


def test_unusable_voices_are_named_and_others_generated(generate, samples, tmp_path):
    (tmp_path / "letter.txt").write_text("dear voice, " * 100)
    result = generate(tmp_path / "letter.txt", samples / "awb.wav", "-o", "faces")
    assert result.exit_code == 1
    assert "letter.txt: audio must be in a format that libsndfile reads" in result.stderr
    assert (tmp_path / "faces" / "awb.png").is_file()
    assert not (tmp_path / "faces" / "letter.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "77"], "size must be one of 32, 64, got 77"),
        (["--steps", "99"], "steps must be 1 to 40, got 99"),
        (["--bundle", "nowhere"], "no bundle in nowhere: bundle.json is missing"),
        (["-o", "face.bmp"], "a face is written as .png, .jpg, .jpeg, .webp, got face.bmp"),
        (["--device", "cuda"], "a CUDA device was asked for, but torch can use none: torch "),
        (["--device", "gpu"], "must be cpu, cuda, cuda:1 …, got gpu"),
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(generate, samples, arguments, message):
    if arguments == ["--device", "cuda"] and __import__("torch").cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    result = generate(samples / "slt.wav", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_two_voices_never_share_an_output_file(generate, samples, tmp_path):
    twin = tmp_path / "twin" / "slt.wav"
    twin.parent.mkdir()
    shutil.copy(samples / "slt.wav", twin)
    result = generate(samples / "slt.wav", twin)
    assert result.exit_code == 2
    assert "voices must have different file names" in result.stderr
    result = generate(samples / "slt.wav", twin, "-o", "one.png")
    assert "2 voices need a folder, got the file one.png" in result.stderr


def test_every_command_has_help(run):
    for command in ((), ("generate",), ("serve",), ("bundle",), ("bundle", "demo"), ("archive",)):
        result = run(*command, "--help")
        assert result.exit_code == 0
        assert len(result.output) > 150


def test_every_option_has_a_help_text():
    pending, without = [("voicestyle", main)], []
    while pending:
        name, command = pending.pop()
        pending += [(f"{name} {child}", found) for child, found in getattr(command, "commands", {}).items()]
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        without += [f"{name} {option.opts[0]}" for option in options if not option.help]
    assert not without


def test_serve_names_the_command_that_writes_an_archive(run):
    result = run("serve", "--archive", "none.mar")
    assert result.exit_code == 2
    assert "none.mar is missing; `voicestyle archive` writes" in result.stderr


def test_archive_is_rebuilt_only_if_stale_or_forced(run, tiny_bundle, tmp_path):
    archive = tmp_path / "voicestyle.mar"
    arguments = ("archive", "--bundle", tiny_bundle, "-o", archive)
    assert run(*arguments).exit_code == 0
    first = archive.stat().st_mtime_ns
    assert run(*arguments).output == f"{archive} is current\n"
    assert archive.stat().st_mtime_ns == first
    assert "MB" in run(*arguments, "--force").output
    assert archive.stat().st_mtime_ns > first


def test_version_is_that_of_pyproject(run):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert run("--version").output.split()[-1] == project["project"]["version"]
