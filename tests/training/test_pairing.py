"""Codes of made-up voices and faces: they agree within a speaker, keep their order in w, and leave out what is held.

The voices have a few axes in which speakers differ, a difference of the sexes, and crops that scatter around a speaker.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from voicestyle.training.pairing import FaceAxes, VoiceAxes, unit_rows

DIM, CODES, LATENT = 32, 6, 20
STRENGTHS = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
HELD_DIM = 2


@dataclass(frozen=True)
class Voices:
    """means: [S, V]. crops: [S, n, V]. sex: [S]."""

    means: np.ndarray
    crops: np.ndarray
    sex: np.ndarray


def made_up_voices(seed, count=120, crops=8, scatter=0.05):
    """Speakers of the same space: only their places in it depend on the seed."""
    space = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, CODES + 1)))[0].T
    rng = np.random.default_rng(seed)
    sex = np.arange(count) % 2
    whole = (rng.standard_normal((count, CODES)) * STRENGTHS) @ space[:CODES] + 1.5 * (2 * sex - 1)[:, None] * space[-1]
    means = whole + 3 + 0.02 * rng.standard_normal((count, DIM))
    parts = means[:, None] + scatter * rng.standard_normal((count, crops, DIM))
    return Voices(means.astype(np.float32), parts.astype(np.float32), sex)


@pytest.fixture(scope="module")
def voices():
    return made_up_voices(1)


@pytest.fixture(scope="module")
def axes(voices):
    return VoiceAxes.fit(voices.means, voices.crops, voices.sex, CODES)


@dataclass(frozen=True)
class MadeUpFaces:
    """latents: [N, D]. descriptors: [N, F]. sex: [N]. held: [H, D]."""

    latents: np.ndarray
    descriptors: np.ndarray
    sex: np.ndarray
    held: np.ndarray


@pytest.fixture(scope="module")
def faces():
    """Latents whose components have different variances; descriptors see half of them, and some of what is held."""
    rng = np.random.default_rng(2)
    sex = np.arange(900) % 2
    mixing = np.linalg.qr(rng.standard_normal((LATENT, LATENT)))[0] * np.linspace(1.5, 0.5, LATENT)
    latents = rng.standard_normal((900, LATENT)) @ mixing + (2 * sex - 1)[:, None] * rng.standard_normal(LATENT)
    held = rng.standard_normal((HELD_DIM, LATENT))
    seen = np.concatenate([rng.standard_normal((LATENT // 2, LATENT)), held])
    descriptors = latents @ seen.T + 0.1 * rng.standard_normal((900, len(seen)))
    return MadeUpFaces(latents.astype(np.float32), descriptors.astype(np.float32), sex, held)


@pytest.fixture(scope="module")
def face_axes(faces):
    return FaceAxes.fit(faces.latents, faces.descriptors, faces.sex, CODES, held=faces.held, components=18)


def random_codes(count, seed=3):
    return unit_rows(np.random.default_rng(seed).standard_normal((count, CODES)))


def test_crops_of_one_speaker_agree_better_than_those_of_two(axes):
    """For speakers that the axes were not fitted to."""
    others = made_up_voices(7, count=40)
    codes = axes.codes(others.crops.reshape(-1, DIM))
    speaker = np.repeat(np.arange(40), 8)
    same = (speaker[:, None] == speaker) & ~np.eye(len(speaker), dtype=bool)
    cosines = codes @ codes.T
    assert cosines[same].min() > 0.8
    assert cosines[same].mean() > 0.97
    same_sex = (others.sex[speaker][:, None] == others.sex[speaker]) & (speaker[:, None] != speaker)
    assert abs(cosines[same_sex].mean()) < 0.2
    np.fill_diagonal(cosines, -1)
    assert (speaker[cosines.argmax(1)] == speaker).mean() > 0.95


def test_codes_have_length_one(axes, face_axes, faces, voices):
    for codes in (axes.codes(voices.means), face_axes.codes(faces.latents, faces.sex)):
        assert codes.shape[1] == CODES
        np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1)


def test_codes_leave_the_sex_out(axes, voices):
    """A voice that is moved towards the other sex keeps its code."""
    across = voices.means[voices.sex == 1].mean(0) - voices.means[voices.sex == 0].mean(0)
    np.testing.assert_allclose(axes.codes(voices.means + 0.7 * across), axes.codes(voices.means), atol=1e-4)
    np.testing.assert_allclose(axes.axes.T @ axes.axes, np.eye(CODES), atol=1e-6)


def test_the_axes_are_in_the_order_of_their_strength(axes, voices):
    places = (voices.means - axes.centre) @ axes.axes
    spread = np.sqrt(np.mean([places[voices.sex == sex].var(0) for sex in (0, 1)], axis=0))
    assert (np.diff(spread) < 0).all()
    np.testing.assert_allclose(spread, STRENGTHS, rtol=0.3)


def test_the_sign_of_the_score_is_the_sex(axes, voices):
    others = made_up_voices(8)
    scores = axes.sex_scores(others.crops.reshape(-1, DIM)).reshape(len(others.sex), -1)
    assert (scores[others.sex == 0] < 0).all()
    assert (scores[others.sex == 1] > 0).all()
    of_crops = axes.sex_scores(voices.crops.reshape(-1, DIM)).reshape(len(voices.sex), -1)
    assert of_crops[voices.sex == 0].mean() == pytest.approx(-1, abs=1e-5)
    assert of_crops[voices.sex == 1].mean() == pytest.approx(1, abs=1e-5)


def test_a_made_up_vector_has_the_given_code_and_sex(axes):
    """Nearly: the axis of sex, a discriminant, is not quite at right angles to the axes of the codes."""
    codes, sex = random_codes(50), np.arange(50) % 2
    vectors = axes.vectors(codes, sex)
    assert (axes.codes(vectors) * codes).sum(1).min() > 0.99
    np.testing.assert_allclose(axes.sex_scores(vectors), 2 * sex - 1, atol=0.25)
    length = np.linalg.norm((vectors - axes.centre) @ axes.axes, axis=1)
    np.testing.assert_allclose(length, axes.length, rtol=0.1)


def test_alike_voices_have_alike_faces(face_axes):
    """Distances of codes keep their order in w, within a sex."""
    codes = random_codes(60)
    latents = face_axes.latents(codes, np.zeros(60, np.int64))
    pairs = np.triu_indices(60, 1)
    of_codes = np.linalg.norm(codes[pairs[0]] - codes[pairs[1]], axis=1)
    of_latents = np.linalg.norm(latents[pairs[0]] - latents[pairs[1]], axis=1)
    ranks = [np.argsort(np.argsort(each)) for each in (of_codes, of_latents)]
    assert np.corrcoef(*ranks)[0, 1] > 0.7
    nearest, farthest = of_codes.argsort()[:100], of_codes.argsort()[-100:]
    assert of_latents[nearest].max() < of_latents[farthest].min() + 0.5 * np.median(of_latents)


def test_faces_of_a_code_have_that_code(face_axes):
    codes, sex = random_codes(80), np.arange(80) % 2
    found = face_axes.codes(face_axes.latents(codes, sex), sex)
    assert (found * codes).sum(1).min() > 0.9
    assert ((found @ codes.T).argmax(1) == np.arange(80)).all()


def test_faces_keep_their_distance_from_the_mean_face(faces):
    for distance in (2.0, 5.5):
        axes = FaceAxes.fit(
            faces.latents, faces.descriptors, faces.sex, CODES, held=faces.held, components=18, distance=distance
        )
        moved = axes.latents(axes.codes(faces.latents, faces.sex), faces.sex) - axes.mean[faces.sex]
        assert np.linalg.norm(moved, axis=1).mean() == pytest.approx(distance, rel=0.02)


def test_held_directions_stay_at_the_mean_of_each_sex(face_axes, faces):
    codes, sex = random_codes(40), np.arange(40) % 2
    held = face_axes.latents(codes, sex) @ faces.held.T
    np.testing.assert_allclose(held, face_axes.mean[sex] @ faces.held.T, atol=1e-8)
    free = np.random.default_rng(4).standard_normal((HELD_DIM, LATENT))
    assert np.abs((face_axes.latents(codes, sex) - face_axes.mean[sex]) @ free.T).mean() > 1


def test_codes_leave_out_what_is_held(face_axes, faces):
    """A face that is changed as its held values predict keeps its code."""
    centred = faces.latents - face_axes.mean[faces.sex]
    covariance = centred.T @ centred / len(centred)
    along = np.linalg.solve(faces.held @ covariance @ faces.held.T, faces.held @ covariance)
    moved = faces.latents + np.array([2.0, -1.5]) @ along
    np.testing.assert_allclose(face_axes.codes(moved, faces.sex), face_axes.codes(faces.latents, faces.sex), atol=1e-6)


def test_a_fit_to_the_same_data_in_another_order_gives_the_same_codes(axes, voices):
    order = np.random.default_rng(5).permutation(len(voices.sex))
    other = VoiceAxes.fit(voices.means[order], voices.crops[order], voices.sex[order], CODES)
    np.testing.assert_allclose(other.codes(voices.means), axes.codes(voices.means), atol=1e-3)
