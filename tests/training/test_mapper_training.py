"""The training of a mapper on a tiny bundle: it learns, stays diverse, holds directions and resumes to the bit."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.support.tiny_mapper import DIM, mapper_bundle, mapper_voices
from voicestyle.errors import CheckpointError
from voicestyle.latent_prior import LatentPrior
from voicestyle.manifest import Prior
from voicestyle.pipeline import Pipeline
from voicestyle.training.errors import TrainingDataError, TrainingError
from voicestyle.training.mapper_objective import between
from voicestyle.training.mapper_options import PRIOR_WEIGHT, MapperOptions
from voicestyle.training.mapper_pool import make_pool, split_speakers
from voicestyle.training.mapper_training import MapperTraining, train_mapper

OPTIONS = MapperOptions(
    steps=100, minutes=None, others=24, validate_every=50, prior_weight=0.1, hidden=32, at_once=8, learning_rate=1e-2
)
SHORT = replace(OPTIONS, steps=12, validate_every=4)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(options=OPTIONS, voices=None, **parts):
    return MapperTraining(mapper_bundle(), voices or mapper_voices(), options, **parts)


def test_loss_falls_and_similarity_rises_on_held_out_speakers():
    training = make()
    mapper = training.run()
    start, best = training.history[0], training.best
    assert start.losses.similarity == pytest.approx(start.first_similarity)  # an untrained mapper changes nothing
    assert start.between == pytest.approx(start.first_between)
    assert best.losses.loss < 0.6 * start.losses.loss
    assert best.losses.similarity > best.first_similarity + 0.25
    assert training.history[-1].training_loss < 0.9 * training.history[1].training_loss
    held_out = [(voice, speaker) for voice, speaker in mapper_voices() if speaker in training.held_out]
    assert len(training.held_out) == 6
    bundle = mapper_bundle()
    voices = F.normalize(torch.stack([voice for voice, _ in held_out]), dim=1)
    pipeline = Pipeline(bundle, capacity=1)
    first = torch.stack([pipeline.first_latent(voice) for voice in voices])
    with torch.no_grad():
        w = mapper(voices, first)
        faces = bundle.face_encoder(bundle.generator(w, [torch.zeros(1, 1, 8, 8)]).clamp(-1, 1))
    assert float(F.cosine_similarity(faces, voices).mean()) > best.first_similarity + 0.2
    assert not mapper.training


def test_contrast_and_drift_prevent_the_collapse_that_happens_without_them():
    alone = make(replace(OPTIONS, contrast_weight=0.0, drift_weight=0.0, patience=99))
    alone.run()
    both = make(replace(OPTIONS, patience=99))
    both.run()
    assert alone.history[-1].between > 0.8 > alone.history[0].between + 0.3
    assert both.history[-1].between < 0.5 * alone.history[-1].between
    assert both.history[-1].losses.similarity > both.history[-1].first_similarity + 0.25


def test_held_directions_are_held():
    bank = mapper_bundle().latent_bank.latents
    held = np.linalg.qr(np.random.default_rng(2).standard_normal((DIM, 2)))[0].T
    prior = LatentPrior.fit(bank, held=held)
    pool = make_pool(mapper_voices(), ["speaker 1", "speaker 2"], lambda voices: torch.randn(len(voices), DIM))
    moved = {}
    for hold in (True, False):
        mapper = make(replace(SHORT, hold=hold), prior=prior).run()
        with torch.no_grad():
            moved[hold] = (mapper(pool.embeddings, pool.first) - pool.first) @ torch.tensor(held).float().T
    assert moved[True].abs().max() < 1e-5
    assert moved[False].abs().max() > 0.05


def test_the_prior_keeps_latents_near_the_first_ones():
    distances = []
    for weight in (0.0, 3.0):
        training = make(replace(OPTIONS, prior_weight=weight))
        training.run()
        distances.append(training.best.losses.distance)
    assert distances[1] < 0.5 * distances[0]


def test_voices_without_faces_may_be_left_out():
    training = make(replace(SHORT, others=0))
    training.run()
    assert training.best.losses.loss < training.history[0].losses.loss


def test_the_weight_of_the_prior_is_the_options_or_the_default():
    assert make(replace(SHORT, prior_weight=None)).objective.prior_weight == PRIOR_WEIGHT
    assert make(replace(SHORT, prior_weight=0.0)).objective.prior_weight == 0.0


def test_the_bundles_own_prior_is_used():
    bundle = mapper_bundle()
    held = np.eye(DIM, dtype=np.float32)[2:4]
    prior = LatentPrior.fit(bundle.latent_bank.latents * 2, held=held)
    manifest = msgspec.structs.replace(bundle.manifest, prior=Prior(weight=1.75))
    bundle = replace(bundle, manifest=manifest, latent_prior=prior)
    training = MapperTraining(bundle, mapper_voices(), replace(SHORT, prior_weight=None))
    assert training.objective.prior_weight == 1.75
    assert np.array_equal(training.mapper.held.numpy(), prior.held)
    drawn = training._pool.fixed(3)
    moved = 2 * torch.randn(3, DIM)
    losses, _ = training.objective.evaluate(drawn.first + moved, drawn)
    assert losses.distance == pytest.approx(float((moved @ torch.tensor(prior.whitening).T).square().mean()), rel=1e-4)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("last", [0, 4, 8])
def test_a_stopped_training_ends_in_the_same_bits(tmp_path, last):
    whole = train_mapper(mapper_bundle(), mapper_voices(), SHORT, checkpoint=tmp_path / "whole.pt")

    def stop(validation):
        if validation.step == last:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_mapper(mapper_bundle(), mapper_voices(), SHORT, checkpoint=tmp_path / "parts.pt", report=stop)
    torch.randn(7)  # nothing depends on the global state
    seen = []
    parts = train_mapper(
        mapper_bundle(), mapper_voices(), SHORT, checkpoint=tmp_path / "parts.pt", report=lambda v: seen.append(v.step)
    )
    assert seen == [step for step in (4, 8, 12) if step > last]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    states = [torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "parts.pt")]
    assert [row["losses"] for row in states[0]["history"]] == [row["losses"] for row in states[1]["history"]]


def test_a_finished_training_takes_no_further_step(tmp_path):
    first = train_mapper(mapper_bundle(), mapper_voices(), SHORT, checkpoint=tmp_path / "c.pt")
    again = train_mapper(mapper_bundle(), mapper_voices(), SHORT, checkpoint=tmp_path / "c.pt", report=pytest.fail)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_faces_may_go_through_the_networks_in_parts():
    mappers = [make(replace(SHORT, at_once=at_once)).run() for at_once in (1, 3, 8)]
    for other in mappers[1:]:
        torch.testing.assert_close(other.state_dict(), mappers[0].state_dict(), atol=2e-3, rtol=2e-3)


def test_gradient_is_that_of_the_whole_loss():
    training = make(replace(SHORT, at_once=3))
    drawn = training._pool.draw(8, 5, 0, 0)
    latents = (drawn.first + 0.1).requires_grad_()
    scalar, losses = training.objective.gradient(latents, drawn)
    found = torch.autograd.grad(scalar, latents)[0]

    networks = training.objective.networks
    noise = [torch.stack([torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(s)) for s in drawn.noise_seeds])]
    faces = F.normalize(networks.face_encoder(networks.generator(latents[:8], noise).clamp(-1, 1)), dim=1)
    loss = 0.0
    for row in range(8):
        cosines = [faces[row] @ voice for voice in drawn.embeddings]
        others = [c for i, c in enumerate(cosines) if i == row or not drawn.related[row, i]]
        contrast = torch.logsumexp(torch.stack(others) / SHORT.temperature, 0) - cosines[row] / SHORT.temperature
        loss = loss + (1 - cosines[row] + SHORT.contrast_weight * contrast) / 8
    whitening = torch.from_numpy(LatentPrior.fit(mapper_bundle().latent_bank.latents).whitening)
    moved = (latents - drawn.first) @ whitening.T
    loss = loss + SHORT.prior_weight * (moved**2).mean() + SHORT.drift_weight * (moved.mean(0) ** 2).mean()
    torch.testing.assert_close(torch.autograd.grad(loss, latents)[0], found, atol=1e-6, rtol=1e-4)
    assert losses.loss == pytest.approx(float(loss.detach()), rel=1e-4)


def test_w_plus():
    training = MapperTraining(mapper_bundle(rows=3), mapper_voices(), SHORT)
    mapper = training.run()
    assert training.best.losses.loss < training.history[0].losses.loss
    latents = mapper(torch.ones(2, DIM), torch.zeros(2, 3, DIM))
    assert latents.shape == (2, 3, DIM)
    assert torch.equal(latents[:, 0], latents[:, 2])


def test_time_ends_the_training_and_lowers_the_learning_rate():
    training = make(replace(OPTIONS, steps=100_000, minutes=0.01))
    training.run()
    assert 1 <= training.step < 100_000
    assert training.history[-1].step == training.step
    assert training.optimiser.param_groups[0]["lr"] < OPTIONS.learning_rate


def test_patience_ends_the_training_with_the_best_weights():
    training = make(replace(SHORT, steps=400, validate_every=1, patience=2, learning_rate=0.5))
    mapper = training.run()
    losses = [validation.losses.loss for validation in training.history]
    assert training.step < 400
    assert losses.index(min(losses)) == len(losses) - 3
    training.mapper.load_state_dict(mapper.state_dict())
    training._validate([], lambda _: None, None)
    assert training.history[-1].losses == training.best.losses


def test_checkpoints_of_other_trainings_are_rejected(tmp_path):
    path = tmp_path / "checkpoint.pt"
    train_mapper(mapper_bundle(), mapper_voices(), SHORT, checkpoint=path)
    with pytest.raises(TrainingError, match="other options"):
        train_mapper(mapper_bundle(), mapper_voices(), replace(SHORT, seed=1), checkpoint=path)
    with pytest.raises(TrainingError, match="voices"):
        train_mapper(mapper_bundle(), mapper_voices(seed=1), SHORT, checkpoint=path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError):
        train_mapper(mapper_bundle(), mapper_voices(), SHORT, checkpoint=path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, received 0"),
        ({"batch": 1}, "batch must be at least 2, received 1"),
        ({"minutes": 0.0}, "minutes must be above 0, received 0.0"),
        ({"minutes": float("nan")}, "minutes must be above 0, received nan"),
        ({"prior_weight": -1.0}, "prior_weight must be at least 0, received -1.0"),
        ({"virtual": -0.5}, "virtual must be at least 0, received -0.5"),
        ({"learning_rate": 0.0}, "learning rates must be"),
    ],
)
def test_options_out_of_range(change, message):
    with pytest.raises(TrainingError, match=message):
        replace(OPTIONS, **change)


def test_unsuitable_voices():
    with pytest.raises(TrainingDataError, match="at least 8 speakers .4 are held out., received 7"):
        make(voices=mapper_voices(speakers=7))
    with pytest.raises(TrainingError, match="must have 8 components as in the bundle, received .5. for 'someone'"):
        make(voices=[*mapper_voices(), (torch.ones(5), "someone")])


def test_a_loss_that_is_not_finite_ends_the_training():
    training = make(SHORT)
    with torch.no_grad():
        training.mapper.last.bias.fill_(torch.nan)
    with pytest.raises(TrainingError, match="must be finite"):
        training.run()


def test_the_split_depends_on_ids_alone():
    ids = [f"id{number}" for number in range(50)]
    training, held_out = split_speakers(ids)
    assert (training, held_out) == split_speakers(ids[::-1] + ids)
    assert len(held_out) == 5
    assert set(training) | set(held_out) == set(ids)
    assert set(split_speakers(ids[:45])[1]) & set(held_out)
    assert len(split_speakers(ids[:8])[1]) == 4


def test_mixed_voices_lie_between_two_near_speakers():
    speakers = [f"speaker {number}" for number in range(30)]
    pool = make_pool(mapper_voices(30), speakers, lambda voices: voices[:, :3], virtual=1.5, seed=3)
    plain = make_pool(mapper_voices(30), speakers, lambda voices: voices[:, :3])
    count = len(plain.embeddings)
    assert len(pool.embeddings) == count + round(1.5 * count)
    assert torch.equal(pool.embeddings[:count], plain.embeddings)
    torch.testing.assert_close(pool.embeddings.norm(dim=1), torch.ones(len(pool.embeddings)))
    own, partner = pool.speakers[count:].T
    assert (own != partner).all()
    means = F.normalize(torch.stack([plain.embeddings[plain.speakers[:, 0] == s].mean(0) for s in range(30)]), dim=1)
    cosines = means @ means.T
    for voice, first, second in zip(pool.embeddings[count:], own, partner, strict=True):
        assert (cosines[first] > cosines[first, second]).sum() <= 8  # itself and seven nearer ones
        assert voice @ means[first] > 0.9 * max(float(voice @ means[second]), 0)
    assert pool.first.shape == (len(pool.embeddings), 3)


def test_a_draw_has_different_speakers_and_knows_who_is_related():
    speakers = [f"speaker {number}" for number in range(30)]
    pool = make_pool(mapper_voices(30), speakers, lambda voices: voices, virtual=2.0)
    drawn = pool.draw(4, 16, seed=0, step=5)
    assert drawn.embeddings.shape == (20, DIM)
    assert len(drawn.noise_seeds) == 4
    assert drawn.related.diagonal().all()
    assert torch.equal(drawn.related, drawn.related.T)
    rows = [int((pool.embeddings == voice).all(1).nonzero()[0, 0]) for voice in drawn.embeddings]
    sets = [set(pool.speakers[row].tolist()) for row in rows]
    assert len({int(pool.speakers[row, 0]) for row in rows}) == 20
    assert drawn.related.tolist() == [[bool(a & b) for b in sets] for a in sets]
    assert not torch.equal(drawn.embeddings, pool.draw(4, 16, seed=0, step=6).embeddings)
    assert pool.draw(40, 16, seed=0, step=0).embeddings.shape == (30, DIM)


def test_further_negatives_belong_to_no_face():
    pool = make_pool(mapper_voices(30), [f"speaker {number}" for number in range(30)], lambda voices: voices)
    drawn, objective = pool.fixed(4), make(SHORT).objective
    latents = drawn.first + 0.1
    alone, _ = objective.evaluate(latents, drawn)
    same, _ = objective.evaluate(latents, drawn.with_negatives(pool.fixed(0).embeddings))
    more, faces = objective.evaluate(latents, drawn.with_negatives(pool.embeddings[20:]))
    assert same == alone
    assert len(faces) == 4
    assert more.contrast > alone.contrast
    assert (more.similarity, more.distance, more.drift) == (alone.similarity, alone.distance, alone.drift)


def test_between_is_the_mean_cosine_of_different_faces():
    faces = F.normalize(torch.randn(5, 3), dim=1)
    plain = [float(a @ b) for i, a in enumerate(faces) for j, b in enumerate(faces) if i != j]
    assert between(faces) == pytest.approx(sum(plain) / len(plain), abs=1e-6)
