"""The demo's training on made-up voices and descriptors: it learns whose face is whose, and resumes to the bit."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.support.demo_training_set import BANK, FACE_DIM, OPTIONS, SPEAKERS, batch_maker, training_set
from voicestyle.demo_encoders import FaceHead, VoiceHead
from voicestyle.training.assets import consistent_faces, measure
from voicestyle.training.batches import BatchMaker
from voicestyle.training.clusters import spherical_kmeans
from voicestyle.training.demo import SEX_LENGTH, SEX_SHARPNESS, Encoders, new_heads
from voicestyle.training.demo_objective import DemoObjective
from voicestyle.training.errors import TrainingError
from voicestyle.training.options import FaceOptions, TrainOptions
from voicestyle.training.trainer import Trainer

DIM = 12


def trainer(options: TrainOptions = OPTIONS, source: BatchMaker | None = None) -> Trainer:
    torch.manual_seed(0)
    model = Encoders(VoiceHead(DIM), FaceHead(DIM, hidden=16))
    return Trainer(model, source or batch_maker(options), DemoObjective(options, SPEAKERS, DIM), options.loop())


def own_faces_found(model: Encoders) -> float:
    """Share of the speakers whose recording is nearer to one of their own faces than to those of all others."""
    data, descriptors = training_set()
    with torch.inference_mode():
        voices, faces = model.eval()(torch.from_numpy(data.speakers.means()), descriptors[data.speaker_faces.flatten()])
    nearest = (F.normalize(voices, dim=1) @ F.normalize(faces, dim=1).T).argmax(1) // data.speaker_faces.shape[1]
    return float((nearest == torch.arange(SPEAKERS)).float().mean())


@pytest.fixture(scope="module")
def trained():
    learner = trainer(dataclasses.replace(OPTIONS, epochs=60))
    before = own_faces_found(learner.model)
    losses: list[dict[str, float]] = []
    learner.run(lambda _, parts: losses.append(parts))
    return learner, losses, before


def test_training_lowers_all_losses(trained):
    _, losses, _ = trained
    assert losses[-1]["loss"] < 0.6 * losses[0]["loss"]
    for part in ("within", "instance", "sex", "distance"):
        assert losses[-1][part] < 0.9 * losses[0][part], part
    assert sum(losses[-1][part] for part in ("within", "instance", "sex", "distance", "prototype")) == pytest.approx(
        losses[-1]["loss"], rel=1e-4
    )


def test_voices_find_their_own_faces(trained):
    learner, _, before = trained
    assert before < 0.3
    assert own_faces_found(learner.model) > 0.8


def test_prototypes_count_once_all_speakers_were_seen(trained):
    learner, losses, _ = trained
    assert "prototype" not in losses[0]
    assert losses[-1]["prototype"] > 0
    assert learner.objective.memory.all_seen()


def test_a_weight_of_zero_leaves_a_loss_out():
    maker = batch_maker()
    batch = next(maker.batches(0))
    torch.manual_seed(0)
    voices, faces = (F.normalize(torch.randn(len(batch.identities), DIM), dim=1) for _ in range(2))
    options = dataclasses.replace(OPTIONS, sex_weight=0.0, distance_weight=4.0)
    usual = DemoObjective(OPTIONS, SPEAKERS, DIM).losses(batch, voices, faces)
    other = DemoObjective(options, SPEAKERS, DIM).losses(batch, voices, faces)
    assert other["sex"] == 0
    assert float(other["distance"]) == pytest.approx(4 / OPTIONS.distance_weight * float(usual["distance"]))
    assert float(usual["distance"]) == pytest.approx(
        OPTIONS.distance_weight * (1 - float((voices * faces).sum(1).mean())), rel=1e-5
    )
    assert float(other["instance"]) == float(usual["instance"])


def test_matched_embeddings_have_lower_losses_than_shuffled_ones():
    batch = next(batch_maker().batches(0))
    count = len(batch.identities) // 2
    torch.manual_seed(0)
    voices = F.normalize(torch.randn(count, DIM), dim=1).repeat(2, 1)
    order = torch.arange(count).roll(1).repeat(2)
    own = DemoObjective(OPTIONS, SPEAKERS, DIM).losses(batch, voices, voices)
    wrong = DemoObjective(OPTIONS, SPEAKERS, DIM).losses(batch, voices, voices[order])
    assert own["instance"] < wrong["instance"] - 1
    assert own["distance"] == pytest.approx(0, abs=1e-5)
    assert own["within"] == wrong["within"]


def test_memory_is_the_mean_of_both_views():
    batch = next(batch_maker().batches(0))
    torch.manual_seed(0)
    voices, faces = (F.normalize(torch.randn(len(batch.identities), DIM), dim=1) for _ in range(2))
    objective = DemoObjective(OPTIONS, SPEAKERS, DIM)
    objective.losses(batch, voices, faces)
    first, second = voices.view(2, -1, DIM)
    for place, speaker in enumerate(batch.identities[: OPTIONS.speakers_per_batch].tolist()):
        expected = F.normalize(first[place] + second[place], dim=0)
        torch.testing.assert_close(objective.memory.voice[speaker], expected)
    assert int(objective.memory.face.any(1).sum()) == OPTIONS.speakers_per_batch


class StopError(Exception):
    pass


def stop_after(number: int):
    def report(epoch: int, _: dict[str, float]) -> None:
        if epoch == number:
            raise StopError

    return report


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_resumed_training_gives_the_same_weights(tmp_path: Path, epochs: int):
    """With dropout, and whatever torch's global random state is."""
    options = dataclasses.replace(OPTIONS, epochs=5)
    whole = trainer(options)
    whole.run(lambda *_: None)
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(StopError):
        trainer(options).run(stop_after(epochs), checkpoint)
    resumed = trainer(options)
    resumed.resume(checkpoint)
    assert resumed.epoch == epochs
    torch.manual_seed(99)
    resumed.run(lambda *_: None, checkpoint)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert torch.equal(whole.objective.memory.face, resumed.objective.memory.face)


def test_dropout_takes_part():
    """Otherwise the resumed training above would not show that it is reproducible."""
    learner = trainer(dataclasses.replace(OPTIONS, epochs=1))
    learner.run(lambda *_: None)
    without = trainer(dataclasses.replace(OPTIONS, epochs=1))
    without.model.face_subnet.dropout.p = 0.0
    without.run(lambda *_: None)
    assert not torch.equal(learner.model.face_subnet.out.weight, without.model.face_subnet.out.weight)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"temperature": 0.4}, "objective.temperature"),
        ({"clusters": 5}, "objective.clusters"),
        ({"learning_rate": 1e-3}, "loop.optimiser.learning_rate"),
        ({"precision": "bfloat16"}, "loop.precision"),
    ],
)
def test_a_checkpoint_of_other_options_is_rejected(tmp_path: Path, change: dict[str, object], named: str):
    checkpoint = tmp_path / "checkpoint.pt"
    trainer().save(checkpoint)
    with pytest.raises(TrainingError, match=f"other options \\(.*{named}"):
        trainer(dataclasses.replace(OPTIONS, **change)).resume(checkpoint)


def test_a_checkpoint_of_other_voices_is_rejected(tmp_path: Path):
    checkpoint = tmp_path / "checkpoint.pt"
    trainer().save(checkpoint)
    other = batch_maker()
    other.data.speakers.windows[3][1][0, 7] += 0.01
    with pytest.raises(TrainingError, match=r"other options \(data.speakers\)"):
        trainer(source=other).resume(checkpoint)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"speakers_per_batch": 5}, {"speakers_per_batch": 2}, {"temperature": 0}, {"sex_temperature": -1}],
)
def test_invalid_options_are_rejected(wrong: dict[str, object]):
    rule = "temperatures must be positive" if "temperature" in str(wrong) else f"{next(iter(wrong))} must be"
    with pytest.raises(ValueError, match=f"{rule}.*received.*{next(iter(wrong.values()))}"):
        dataclasses.replace(OPTIONS, **wrong)
    with pytest.raises(ValueError, match="views must be at least 1, received 0"):
        FaceOptions(views=0)


def test_new_heads_give_the_code_and_the_sex_of_a_voice():
    """Before any training: the first components are the code, the last one the squashed score of the sex."""
    data, descriptors = training_set()
    voice, face = new_heads(data.axes, descriptors.numpy(), seed=0)
    vectors = data.speakers.means()
    with torch.inference_mode():
        embeddings = voice(torch.from_numpy(vectors)).numpy()
        standardised = (descriptors - face.mean) / face.scale
    count = data.axes.axes.shape[1]
    codes = embeddings[:, :count] / np.linalg.norm(embeddings[:, :count], axis=1, keepdims=True)
    np.testing.assert_allclose(codes, data.axes.codes(vectors), atol=1e-4)
    assert np.linalg.norm(embeddings[:, :count], axis=1).mean() == pytest.approx(1, abs=0.05)
    assert (embeddings[:, count:-1] == 0).all()
    scores = SEX_LENGTH * np.tanh(SEX_SHARPNESS * data.axes.sex_scores(vectors))
    np.testing.assert_allclose(embeddings[:, -1], scores, atol=1e-4)
    assert not voice.sex.weight.requires_grad
    torch.testing.assert_close(standardised.mean(0), torch.zeros(FACE_DIM), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardised.std(0, correction=0), torch.ones(FACE_DIM))


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


def test_the_bank_is_described():
    assert batch_maker().description()["faces"] == BANK
