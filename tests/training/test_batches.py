"""Batches of the demo's training: two views of each identity, balanced by sex, from their key alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.demo_training_set import BANK, CODES, OPTIONS, SPEAKERS, batch_maker
from voicestyle.training.batches import BatchMaker

IDENTITIES = OPTIONS.speakers_per_batch + OPTIONS.bank_faces_per_batch


@pytest.fixture(scope="module")
def maker():
    return batch_maker()


@pytest.fixture(scope="module")
def by_row(maker):
    """The same batches, whose views of a face are its row."""
    return replace(maker, views_of=lambda rows, generator: rows)


def test_a_batch_has_two_views_of_each_identity(maker):
    for batch in maker.batches(0):
        first, second = batch.identities.view(2, -1)
        assert torch.equal(first, second)
        assert len(set(first.tolist())) == IDENTITIES
        assert batch.voices.shape == (2 * IDENTITIES, 256)
        assert batch.voices.dtype == torch.float32
        assert batch.faces.shape == (2 * IDENTITIES, 128)
        voices, faces = batch.voices.view(2, IDENTITIES, -1), batch.faces.view(2, IDENTITIES, -1)
        assert (faces[0] - faces[1]).abs().flatten(1).amax(1).min() > 0
        assert (voices[0] - voices[1]).abs().amax(1).gt(1e-4).float().mean() > 0.7  # crops can be equal


def test_speakers_are_half_women_half_men(maker):
    for batch in maker.batches(3):
        speakers = batch.identities[: OPTIONS.speakers_per_batch]
        assert (speakers < SPEAKERS).all()
        sex = batch.sex[: OPTIONS.speakers_per_batch]
        assert sex.sum() == OPTIONS.speakers_per_batch // 2
        assert torch.equal(sex, maker.data.speaker_sex[speakers])


def test_the_rest_is_of_the_bank(maker):
    for batch in maker.batches(1):
        others = batch.identities[OPTIONS.speakers_per_batch : IDENTITIES]
        assert others.min() >= SPEAKERS
        assert others.max() < SPEAKERS + BANK
        sex = batch.sex[OPTIONS.speakers_per_batch : IDENTITIES]
        assert torch.equal(sex, maker.data.bank_sex[others - SPEAKERS])


def test_faces_are_those_of_their_identity(by_row):
    for batch in by_row.batches(0):
        for identity, row in zip(batch.identities.tolist(), batch.faces.tolist(), strict=True):
            if identity < SPEAKERS:
                assert row in by_row.data.speaker_faces[identity]
            else:
                assert row == by_row.data.bank_rows[identity - SPEAKERS]


def test_all_faces_of_a_speaker_are_used(by_row):
    rows = torch.cat([batch.faces for epoch in range(30) for batch in by_row.batches(epoch)])
    assert set(by_row.data.speaker_faces.flatten().tolist()) <= set(rows.tolist())


def test_voices_are_crops_of_their_speaker(maker):
    for batch in maker.batches(2):
        speakers = batch.identities < SPEAKERS
        nearest = (batch.voices[speakers] @ torch.from_numpy(maker.data.speakers.means()).T).argmax(1)
        assert torch.equal(nearest, batch.identities[speakers])


def test_a_batch_depends_on_seed_epoch_and_step_alone(maker):
    def drawn(made: BatchMaker, epoch: int):
        return [torch.cat([batch.voices, batch.faces], dim=1) for batch in made.batches(epoch)]

    one, two = drawn(maker, 1), drawn(batch_maker(), 1)
    assert len(one) == maker.steps_per_epoch == SPEAKERS // OPTIONS.speakers_per_batch
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], drawn(maker, 2)[0])
    other_seed = batch_maker(replace(OPTIONS, seed=1))
    assert not torch.equal(one[0], drawn(other_seed, 1)[0])


def test_the_global_random_state_changes_no_batch(maker):
    torch.manual_seed(1)
    one = next(maker.batches(0))
    torch.manual_seed(2)
    two = next(maker.batches(0))
    assert torch.equal(one.voices, two.voices)
    assert torch.equal(one.faces, two.faces)


def test_made_up_voices_are_unit_vectors_without_negatives(maker):
    made_up = maker.data.made_up_voices(torch.arange(BANK), torch.Generator().manual_seed(0))
    assert made_up.shape == (BANK, 256)
    assert made_up.dtype == np.float32
    assert made_up.min() == 0
    np.testing.assert_allclose(np.linalg.norm(made_up, axis=1), 1, atol=1e-5)


def test_made_up_voices_have_the_code_and_the_sex_of_their_face(maker):
    others = torch.arange(BANK).flip(0)
    made_up = maker.data.made_up_voices(others, torch.Generator().manual_seed(0))
    cosines = (maker.data.axes.codes(made_up) * maker.data.bank_codes[others]).sum(1)
    assert cosines.mean() > 0.9
    assert cosines.min() > 0.6
    assert (np.sign(maker.data.axes.sex_scores(made_up)) == 2 * maker.data.bank_sex[others].numpy() - 1).all()
    assert maker.data.bank_codes.shape == (BANK, CODES)


def test_a_made_up_voice_varies_as_crops_do(maker):
    generator = torch.Generator().manual_seed(0)
    views = np.stack([maker.data.made_up_voices(torch.tensor([5]), generator)[0] for _ in range(20)])
    cosines = (views @ views.T)[~np.eye(20, dtype=bool)]
    assert cosines.min() > 0.9
    assert np.median(cosines) < 0.999


def test_a_small_training_set_has_one_step():
    assert batch_maker(replace(OPTIONS, speakers_per_batch=SPEAKERS + 2)).steps_per_epoch == 1


def test_the_description_names_the_data(maker):
    description = maker.description()
    assert description == batch_maker().description()
    changed = batch_maker()
    changed.data.speakers.windows[0][0][0, 0] += 0.1
    assert changed.description() != description
