"""The training loop on tiny videos: it learns, resumes to the bit, and stops at the first loss that is not finite."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

import cmpc2
from voicestyle.errors import CheckpointError
from voicestyle.training.cmpc import CmpcOptions
from voicestyle.training.cmpc_training import CHECKPOINT, CmpcTraining
from voicestyle.training.errors import TrainingError
from voicestyle.training.optimiser import OptimiserOptions
from voicestyle.training.trainer import LoopOptions
from voicestyle.training.training_options import TrainingOptions
from voicestyle.training.video_batches import DataOptions
from voicestyle.training.videos import find_folders, read_videos


@pytest.fixture
def options(tiny):
    return TrainingOptions(
        data=DataOptions(batch=12, image_size=32, frames=40, workers=0),
        objective=CmpcOptions(levels=(3, 6), warm_up_epochs=2, cluster_every=2, temperature=0.1, negatives=4),
        loop=LoopOptions(epochs=6, optimiser=OptimiserOptions(learning_rate=1e-2, final_learning_rate=1e-3)),
        voice=tiny,
        face=tiny,
    )


@pytest.fixture
def training(videos_folder, options, tmp_path):
    """`training(output, **changes)`: a training of the same 48 videos, with its trainer."""
    folder = videos_folder(videos=48)
    table = read_videos(folder / "training.csv", *find_folders(folder))

    def make(output="out", **changes):
        (tmp_path / output).mkdir(exist_ok=True)
        made = CmpcTraining(table, tmp_path / output, replace(options, **changes))
        return made, made.trainer()

    return make


def ignore(epoch, losses):
    pass


def run(made, trainer, report=ignore):
    made.run(trainer, report)
    return (made.output / CHECKPOINT).read_bytes()


@pytest.mark.long
def test_training_finds_the_face_of_a_voice(training, options):
    objective = replace(options.objective, levels=(6, 8), negatives=0)
    _, trainer = training(loop=replace(options.loop, epochs=24), objective=objective)
    seen = []
    trainer.run(lambda epoch, losses: seen.append(losses))
    assert seen[-1]["instance"] < 0.7 * seen[0]["instance"]
    assert "prototype" not in seen[1]
    assert seen[-1]["prototype"] < 0.7 * seen[2]["prototype"]
    samples = trainer.source.samples
    model = trainer.model
    with torch.inference_mode():
        items = [samples[1000, row] for row in range(48)]
        voices, faces = (torch.stack(each) for each in zip(*items, strict=True))
        cosines = F.normalize(model.encode_voice(voices)) @ F.normalize(model.encode_face(faces)).T
    people = torch.arange(48) % 6
    assert float((people[cosines.argmax(1)] == people).float().mean()) > 0.6  # chance is 1/6


class KilledError(Exception):
    pass


def test_a_killed_training_ends_in_the_same_bytes(training):
    whole = run(*training("whole"))

    def killed_in(number, epoch, losses):
        if epoch == number:
            raise KilledError

    for number in (1, 3, 4):  # in the warm-up, after a clustering, and in an epoch with the clusters of the one before
        with pytest.raises(KilledError):
            run(*training("parts"), report=partial(killed_in, number))
    made, trainer = training("parts")
    assert trainer.epoch == 4
    assert run(made, trainer) == whole
    for name in ("cmpc.pth.tar", "frame_memory.pth.tar", "training.csv"):
        assert (made.output / name).read_bytes() == (made.output.parent / "whole" / name).read_bytes()


def test_the_global_random_state_changes_nothing(training):
    made, trainer = training("one")
    torch.manual_seed(99)
    one = run(made, trainer)
    assert run(*training("two")) == one


def test_a_checkpoint_of_other_options_is_rejected(training, options):
    made, trainer = training()
    trainer.save(made.output / CHECKPOINT)
    with pytest.raises(TrainingError, match=r"other options \(loop.epochs\)"):
        training(loop=replace(options.loop, epochs=7))
    with pytest.raises(TrainingError, match=r"other options \(objective.levels\)"):
        training(objective=replace(options.objective, levels=(3, 5)))
    with pytest.raises(TrainingError, match=r"other options \(data.seed\)"):
        training(seed=5)
    with pytest.raises(TrainingError, match=r"other options \(encoders.voice_subnet"):
        training(voice=replace(options.voice, depths=(1, 1, 1, 2)))


def test_another_file_in_place_of_the_checkpoint_is_rejected(training):
    made, trainer = training()
    torch.save({"model": trainer.model.state_dict()}, made.output / CHECKPOINT)
    with pytest.raises(CheckpointError, match="must be a checkpoint of a training"):
        training()
    (made.output / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="must be a torch file"):
        training()


def test_a_checkpoint_is_also_a_published_one(training, tiny):
    made, trainer = training()
    trainer.save(made.output / CHECKPOINT)
    model = cmpc2.load(made.output / CHECKPOINT, tiny, tiny)
    assert torch.equal(model.voice_subnet.conv1.weight, trainer.model.voice_subnet.conv1.weight)


def test_a_diverging_training_stops_and_keeps_its_last_checkpoint(training):
    made, trainer = training()
    trainer.options = replace(trainer.options, epochs=1)
    trainer.run(ignore, made.output / CHECKPOINT)
    good = (made.output / CHECKPOINT).read_bytes()
    trainer.options = replace(trainer.options, epochs=2)
    torch.nn.init.constant_(trainer.model.face_subnet.conv1.weight, torch.nan)
    with pytest.raises(TrainingError, match="every loss must be finite; epoch 2 diverged"):
        trainer.run(ignore, made.output / CHECKPOINT)
    assert (made.output / CHECKPOINT).read_bytes() == good


def test_bfloat16_keeps_weights_in_float32(training, options):
    losses = {}
    for precision in ("float32", "bfloat16"):
        loop = replace(options.loop, precision=precision, epochs=3)
        _, trainer = training(precision, loop=loop)
        trainer.run(lambda epoch, mean, name=precision: losses.setdefault(name, []).append(mean["loss"]))
        assert all(each.dtype == torch.float32 for each in trainer.model.parameters())
        assert trainer.objective.memory.voice.dtype == torch.float32
    assert losses["bfloat16"][0] == pytest.approx(losses["float32"][0], rel=0.1)
    assert losses["bfloat16"] != losses["float32"]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimisers_follow_the_schedule(training, options, name):
    optimiser = OptimiserOptions(name, 1e-2, 1e-3, clip=1.0)
    _, trainer = training(loop=LoopOptions(2, optimiser=optimiser))
    rates = []
    trainer.run(ignore, record=lambda step, losses: rates.append((step, losses["learning_rate"])))
    assert rates == [(step, optimiser.learning_rate_at(step, 8)) for step in range(8)]
    assert trainer.optimiser.param_groups[0]["lr"] == rates[-1][1]
    assert type(trainer.optimiser).__name__.lower() == name


def test_the_learning_rate_warms_up_and_falls():
    options = OptimiserOptions(learning_rate=1.0, final_learning_rate=0.1, warm_up=0.2)
    rates = [options.learning_rate_at(step, 100) for step in range(100)]
    assert rates.index(max(rates)) == 20
    assert rates[0] < 0.06
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert all(one > two for one, two in pairwise(rates[20:]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "lion"}, "one of adam, adamw, sgd, received 'lion'"),
        ({"learning_rate": 0.0}, "learning rates must be"),
        ({"final_learning_rate": 1.0}, "learning rates must be"),
        ({"warm_up": 1.0}, "warm_up must be in"),
        ({"clip": -1.0}, "clip at least 0"),
    ],
)
def test_invalid_optimisers_are_rejected(wrong, message):
    with pytest.raises(TrainingError, match=message):
        OptimiserOptions(**wrong)


def test_invalid_loops_are_rejected():
    with pytest.raises(TrainingError, match="epochs must be at least 1"):
        LoopOptions(0)
    with pytest.raises(TrainingError, match="precision must be one of float32, bfloat16, received 'half'"):
        LoopOptions(precision="half")
