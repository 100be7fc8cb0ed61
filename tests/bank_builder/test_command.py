"""`voicestyle bank`: its options, its output, and one line for an error."""

import logging
from dataclasses import fields

import pytest
import torch
from click.testing import CliRunner

from tests.support.fake_bank_tools import fake_toolbox, write_photographs
from voicestyle.bank_builder import BankOptions, Counts
from voicestyle.cli import main
from voicestyle.cli.bank import bank
from voicestyle.cli.bank_flags import PhotographBar
from voicestyle.inverted_latents import read_latents
from voicestyle.photographs import Gates


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr("voicestyle.bank_builder.build.make_toolbox", lambda options: fake_toolbox())
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # basicConfig leaves those of pytest alone otherwise
    return lambda *arguments: CliRunner().invoke(main, ["bank", *map(str, arguments)])


def test_build_and_report(run, tmp_path):
    photographs = write_photographs(tmp_path / "photographs", 5)
    done = run("build", photographs, "-o", tmp_path / "bank", "--shard-size", 2)
    assert done.exit_code == 0, done.output
    assert "4 of 5 photographs kept, 1 rejected" in done.stdout
    assert "loss: fake loss\ndetector: fake detector\n" in done.stdout
    assert "'003.png': brightness must be at least 50, received 4.5" in done.stderr
    assert "5/5" in done.stderr
    (tmp_path / "bank" / "report.html").unlink()
    assert run("report", tmp_path / "bank").exit_code == 0
    assert (tmp_path / "bank" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", 0], "steps must be at least 1, got 0"),
        (["--max-yaw", -1], "max_yaw must be a number of at least 0, got -1.0"),
        (["--csv", "a.csv"], "got csv without frames"),
        (["--seed", -1], "seed must be in"),
    ],
)
def test_errors_are_one_line(run, tmp_path, arguments, message):
    done = run("build", write_photographs(tmp_path / "photographs", 1), "-o", tmp_path / "bank", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_photograph_and_no_build_are_one_line(run, tmp_path):
    for arguments in (["build", tmp_path / "absent", "-o", tmp_path / "bank"], ["report", tmp_path / "nothing"]):
        done = run(*arguments)
        assert done.exit_code == 2
        assert done.stderr.startswith("voicestyle: ")
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "meta"], "must be cpu, cuda, cuda:1 …, got meta"),
        (["--device", "gpu", "--ray", "127.0.0.1:1"], "must be cpu, cuda, cuda:1 …, got gpu"),
        (["--device", "cuda", "--ray", "local"], "a CUDA device was asked for, but torch can use none: torch "),
    ],
)
def test_devices_are_checked_before_the_work(run, tmp_path, arguments, message):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    done = run("build", write_photographs(tmp_path / "photographs", 1), "-o", tmp_path / "bank", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "bank").exists()


@pytest.mark.usefixtures("run")
def test_invert_writes_latents_and_a_report_and_nothing_else(tmp_path):
    photographs = write_photographs(tmp_path / "photographs", 5)
    output = tmp_path / "out" / "latents.pt"
    done = CliRunner().invoke(main, ["invert", str(photographs), "-o", str(output), "--batch", "2"])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in output.parent.iterdir()) == ["latents.html", "latents.pt"]
    assert len(read_latents(output).videos) == 4
    assert f"report: {output.with_suffix('.html')}" in done.stdout
    for arguments in (["-o", str(tmp_path)], ["-o", "latents.npy"], ["-o", str(output), "--batch", "0"]):
        assert CliRunner().invoke(main, ["invert", str(photographs), *arguments]).exit_code == 2


def test_every_option_and_gate_has_a_flag():
    flags = {parameter.name for parameter in bank.commands["build"].params}
    gates = {gate.name for gate in fields(Gates)}
    assert flags == ({option.name for option in fields(BankOptions)} - {"gates"}) | gates


def test_gates_go_to_the_plan(run, tmp_path):
    photographs = write_photographs(tmp_path / "photographs", 1)
    assert run("build", photographs, "-o", tmp_path / "bank", "--max-yaw", 12.5, "--min-score", 0.7).exit_code == 0
    plan = (tmp_path / "bank" / "plan.json").read_text()
    assert '"gates.max_yaw": 12.5' in plan
    assert '"gates.min_score": 0.7' in plan


def test_the_bar_has_the_rate_of_this_run(capsys):
    bar = PhotographBar()
    bar.close()
    for done in (60, 61, 80):
        bar(Counts(100, done, kept=done - 60, rejected=1, resumed=60))
    bar.close()
    shown = capsys.readouterr().err
    assert "80/100" in shown
    assert "kept=20, rejected=1" in shown
