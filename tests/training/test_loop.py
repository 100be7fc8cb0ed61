"""A small training of the demo's objective on synthetic voices and faces."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from cmpc2 import CMPC
from tests.training.conftest import TINY
from voicestyle.training.assets import consistent_faces, embed_faces, embed_voices, measure
from voicestyle.training.batches import TrainingSet
from voicestyle.training.clusters import spherical_kmeans
from voicestyle.training.demo import demo_trainer
from voicestyle.training.errors import TrainingError
from voicestyle.training.options import TrainOptions

OPTIONS = TrainOptions(
    epochs=4,
    speakers_per_batch=8,
    other_faces=4,
    face_sizes=(32,),
    crop_frames=(40, 60),
    clusters=4,
    learning_rate=1e-2,
    temperature=0.2,
    sex_temperature=0.3,
)
SEX = torch.arange(16) % 2


def data() -> TrainingSet:
    """Synthetic data: men's voices vary slowly and women's fast, men's faces are wide and women's narrow."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(80)
    mels: list[list[torch.Tensor]] = []
    images: list[np.ndarray] = []
    axis = np.linspace(-1, 1, 32)
    for i, sex in enumerate(SEX.tolist()):
        beat = 1.5 * torch.sin(2 * torch.pi * time / (24 if sex else 6))
        mels.append([beat + 0.5 * torch.randn(1, 64, 80, generator=generator)])
        width = 0.75 if sex else 0.35
        oval = (axis[None, :] / width) ** 2 + (axis[:, None] / 0.8) ** 2 < 1
        images.append(np.repeat(np.where(oval, 200 - i, 40 + i)[:, :, None], 3, 2).astype(np.uint8))
    return TrainingSet(mels, SEX, np.stack(images), SEX, torch.arange(16)[:, None])


def trainer(options: TrainOptions = OPTIONS):
    torch.manual_seed(0)
    return demo_trainer(CMPC(TINY, TINY), data(), options)


def test_training_lowers_the_loss_and_separates_the_sexes():
    learner = trainer(dataclasses.replace(OPTIONS, epochs=40))
    losses: list[dict[str, float]] = []
    learner.run(lambda _, parts: losses.append(parts))
    assert "sex" not in losses[0]
    assert losses[-1]["sex"] < 0.55  # chance is ln 2
    assert losses[-1]["within"] < losses[0]["within"]
    assert "prototype" in losses[-1]
    faces = embed_faces(learner.model, learner.source.data.images)
    voices = embed_voices(learner.model, [row[0] for row in learner.source.data.log_mels])
    assert faces.shape == voices.shape == (16, 16)


def test_metrics_of_a_perfect_bank():
    faces = torch.eye(8)[torch.arange(8).repeat_interleave(5)]
    face_sex = torch.arange(8).repeat_interleave(5) % 2
    clusters = spherical_kmeans(faces, 8, seed=0)
    voice_sex = torch.tensor([0, 0, 1, 1])
    women, men = torch.eye(8)[0::2], torch.eye(8)[1::2]
    voices = torch.stack([women[:3].sum(0), women[1:].sum(0), men[:3].sum(0), men[1:].sum(0)]) / 3**0.5
    measured = measure(voices, voice_sex, faces, face_sex, clusters)
    assert measured["sex_of_nearest"] == measured["least_purity"] == 1
    assert measured["distinct_prototype_sets"] == 4
    assert measured["voice_cosine_same_sex"] == pytest.approx(2 / 3, abs=1e-3)
    assert measure(voices, 1 - voice_sex, faces, face_sex, clusters)["sex_of_nearest"] == 0


def test_faces_inconsistent_with_their_label_are_excluded():
    faces = torch.eye(2)[torch.tensor([0, 0, 0, 1, 1, 1, 1])]
    assert consistent_faces(faces, torch.tensor([0, 0, 0, 1, 1, 1, 0])).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_resumed_training_gives_the_same_weights(tmp_path: Path):
    whole = trainer()
    whole.run(lambda *_: None)

    class StopError(Exception):
        pass

    def stop(epoch: int, _: dict[str, float]) -> None:
        if epoch == 2:
            raise StopError

    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(StopError):
        trainer().run(stop, checkpoint)
    resumed = trainer()
    resumed.resume(checkpoint)
    assert resumed.epoch == 2
    resumed.run(lambda *_: None, checkpoint)
    assert torch.equal(whole.source.partners, resumed.source.partners)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_checkpoint_of_other_options_is_rejected(tmp_path: Path):
    checkpoint = tmp_path / "checkpoint.pt"
    trainer().save(checkpoint)
    other = trainer(dataclasses.replace(OPTIONS, temperature=0.4))
    with pytest.raises(TrainingError, match="other options \\(objective.temperature\\)"):
        other.resume(checkpoint)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"speakers_per_batch": 5}, {"crop_frames": (5, 3)}, {"face_sizes": (64, 32)}, {"temperature": 0}],
)
def test_invalid_options_are_rejected(wrong: dict[str, object]):
    with pytest.raises(ValueError, match=next(iter(wrong))[:11]):
        dataclasses.replace(OPTIONS, **wrong)
