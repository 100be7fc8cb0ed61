"""`voicestyle train`, alone and by torchrun."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import cmpc2
from voicestyle.cli import main
from voicestyle.training.scalars import Scalars

SIZES = {"widths": [4, 8, 8, 16], "depths": [1, 1, 1, 1], "embedding_dim": 16}
OPTIONS = {
    "data": {"batch": 6, "image_size": 32, "frames": 40, "workers": 0},
    "objective": {"levels": [3, 5], "warm_up_epochs": 1, "cluster_every": 1},
    "loop": {"epochs": 3},
    "voice": SIZES,
    "face": SIZES,
}


@pytest.fixture
def arguments(videos_folder, tmp_path):
    """`arguments(output, *more)`: the arguments of a tiny training of three epochs."""
    folder = videos_folder()
    (tmp_path / "options.json").write_text(json.dumps(OPTIONS))

    def make(output, *more):
        paths = {"--csv": folder / "training.csv", "--data": folder, "-o": tmp_path / output}
        paths["--options"] = tmp_path / "options.json"
        return ["train", *(str(word) for pair in paths.items() for word in pair), *more]

    return make


def run(arguments):
    return CliRunner().invoke(main, arguments)


def test_training_writes_checkpoint_memory_log_and_scalars(arguments, tmp_path, tiny):
    done = run(arguments("out", "--tensorboard"))
    assert done.exit_code == 0, done.output
    output = tmp_path / "out"
    assert "epoch 3: instance " in done.output
    log = (output / "train.log").read_text()
    assert "12 videos, 0 skipped; 1 processes on cpu" in log
    assert log.count("epoch 3: instance ") == 1
    assert cmpc2.load(output / "cmpc.pth.tar", tiny, tiny)
    assert torch.load(output / "cmpc.pth.tar", weights_only=True)["epoch"] == 3
    (events,) = (output / "tensorboard").iterdir()
    scalars = EventAccumulator(str(events)).Reload()
    assert [event.step for event in scalars.Scalars("step/loss")] == [0, 1, 2, 3, 4, 5]
    assert [event.step for event in scalars.Scalars("epoch/prototype")] == [3, 5]
    assert scalars.Scalars("step/learning_rate")[0].value > 0


def test_scalars_before_a_resume_are_kept_and_repeated_steps_are_hidden(tmp_path):
    for first, last in ((0, 5), (4, 7)):  # interrupted after step 5, resumed at the end of its second epoch
        scalars = Scalars(tmp_path, first)
        for step in range(first, last + 1):
            scalars.step(step, {"loss": float(last)})
            if step % 2:
                scalars.epoch(step, {"loss": float(last)})
        scalars.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("epoch/loss")] == [(1, 5), (3, 5), (5, 7), (7, 7)]
    assert [event.step for event in events.Scalars("step/loss")] == list(range(8))


def test_a_finished_training_is_not_repeated(arguments, tmp_path):
    assert run(arguments("out")).exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.pth.tar")}
    done = run(arguments("out"))
    assert "continuing after epoch 3" in done.output
    assert "epoch 3:" not in done.output
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.pth.tar")}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--epochs", "0"], "epochs must be at least 1, received 0"),
        (["--batch", "13"], "batch must be at most the number of videos 12, received 13"),
        (["--options", "absent.json"], "absent.json"),
        (["--csv", "absent.csv"], "absent.csv"),
        (["--data", "docs"], "docs must contain the voices in a folder named"),
        (["--image-size", "0"], "image_size and frames at least 1"),
    ],
)
def test_mistakes_are_one_line(arguments, more, message):
    done = run(arguments("out", *more))
    assert done.exit_code == 2
    assert message in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_options_of_the_command_go_before_the_file(arguments, tmp_path):
    assert run(arguments("out", "--epochs", "1", "--seed", "4", "--precision", "bfloat16", "--augment")).exit_code == 0
    description = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["description"]
    assert description["loop"]["epochs"] == 1
    assert description["loop"]["precision"] == "bfloat16"
    assert description["data"]["seed"] == 4
    assert description["data"]["views"] == ["FaceAugmentation", "VoiceAugmentation"]


def test_folders_are_given_together_or_one_by_one(arguments, tmp_path):
    words = arguments("out", "--epochs", "1")
    at = words.index("--data")
    alone = [*words[:at], *words[at + 2 :]]
    done = run(alone)
    assert done.exit_code == 2
    assert "give --data, or both --voices and --faces" in done.output
    folders = ["--voices", str(tmp_path / "data" / "voices"), "--faces", str(tmp_path / "data" / "faces")]
    assert run([*alone, *folders]).exit_code == 0


def test_one_folder_may_be_given_besides_data(arguments, tmp_path):
    (tmp_path / "data" / "voices").rename(tmp_path / "recordings")
    done = run(arguments("out", "--epochs", "1", "--voices", str(tmp_path / "recordings")))
    assert done.exit_code == 0, done.output


def test_tensorboard_is_named_where_it_is_missing(arguments, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    done = run(arguments("out", "--tensorboard"))
    assert done.exit_code == 2
    assert "pip install 'voicestyle[train]'" in done.output


@pytest.mark.long
def test_a_process_that_is_killed_goes_on_to_the_same_bytes(arguments, tmp_path):
    many = ("--epochs", "40")
    assert run(arguments("whole", *many)).exit_code == 0
    command = [sys.executable, "-m", "voicestyle.cli", *arguments("parts", *many)]
    checkpoint = tmp_path / "parts" / "checkpoint.pt"
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL) as running:
        while not checkpoint.is_file() and running.poll() is None:
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    assert 1 <= torch.load(checkpoint, weights_only=True)["epoch"] < 40
    assert run(arguments("parts", *many)).exit_code == 0
    for name in ("checkpoint.pt", "cmpc.pth.tar", "frame_memory.pth.tar", "training.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.long
def test_torchrun_trains_with_two_processes(arguments, tmp_path, tiny):
    torchrun = Path(sys.executable).parent / "torchrun"
    command = [torchrun, "--standalone", "--nproc-per-node=2", "-m", "voicestyle.cli", *arguments("out")]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "2 processes on cpu" in done.stdout
    assert done.stdout.count("epoch 3: instance ") == 1
    assert cmpc2.load(tmp_path / "out" / "cmpc.pth.tar", tiny, tiny)
    assert run(arguments("out")).exit_code == 0  # one process reads the checkpoint of two
