"""The map of first latents: it recovers an affine map for each sex, and does not shrink towards the mean face."""

import numpy as np
import pytest

from voicestyle.training.first_latents import fit_latent_map

DIM, LATENT, COUNT = 6, 10, 400


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def linear():
    """Embeddings of any norm, float32 [N, 6], the latents float64 [N, 10] of an affine map for each sex, and sex."""
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((2, LATENT, DIM)), rng.standard_normal((2, LATENT))
    sex = np.arange(COUNT) % 2
    directions = unit(rng.standard_normal((COUNT, DIM)))
    latents = np.einsum("nde,ne->nd", weight[sex], directions) + bias[sex]
    lengths = rng.uniform(0.5, 4, (COUNT, 1))
    return (directions * lengths).astype(np.float32), latents, sex, weight, bias


def predict(fitted, embeddings, sex):
    return np.einsum("nde,ne->nd", fitted.weight[sex], unit(embeddings)) + fitted.bias[sex]


def test_an_affine_map_of_each_sex_is_recovered(linear):
    embeddings, latents, sex, weight, bias = linear
    fitted = fit_latent_map(embeddings, latents, sex, prototypes=8)
    assert fitted.weight.dtype == fitted.bias.dtype == np.float32
    np.testing.assert_allclose(fitted.weight, weight, atol=0.02)
    np.testing.assert_allclose(fitted.bias, bias, atol=0.02)
    assert np.abs(fitted.weight[0] - fitted.weight[1]).max() > 0.5


def test_the_map_itself_gives_the_latent_of_a_voice(linear):
    """As the pipeline calls it: the nearest prototypes choose the group, the norm of the embedding changes nothing."""
    embeddings, latents, sex, *_ = linear
    fitted = fit_latent_map(embeddings, latents, sex, prototypes=8)
    for row in range(10):
        nearest = [0, 5, 1] if sex[row] == 0 else [6, 2, 7]
        first = fitted(3 * embeddings[row], nearest, np.array([0.9, 0.8, 0.7], np.float32))
        np.testing.assert_allclose(first, latents[row], atol=0.05)


def test_predictions_of_noisy_latents_are_as_far_from_the_mean_as_latents(linear):
    """Regression alone would pull them together: here it explains a fraction of the variance."""
    embeddings, latents, sex, *_ = linear
    noisy = latents + 3 * np.random.default_rng(1).standard_normal(latents.shape)
    fitted = fit_latent_map(embeddings, noisy, sex, prototypes=8)
    predicted = predict(fitted, embeddings, sex)
    for each in (0, 1):
        mine, given = predicted[sex == each], noisy[sex == each]
        np.testing.assert_allclose(mine.mean(0), given.mean(0), atol=1e-4)
        distances = [np.linalg.norm(rows - rows.mean(0), axis=1).mean() for rows in (mine, given)]
        assert distances[0] == pytest.approx(distances[1], rel=1e-4)
        without_noise = latents[sex == each]
        assert (unit(mine - mine.mean(0)) * unit(without_noise - without_noise.mean(0))).sum(1).mean() > 0.7


@pytest.mark.parametrize(("prototypes", "groups"), [(4, [0, 0, 1, 1]), (5, [0, 0, 0, 1, 1]), (2, [0, 1])])
def test_the_first_half_of_the_prototypes_are_womens(linear, prototypes, groups):
    embeddings, latents, sex, *_ = linear
    fitted = fit_latent_map(embeddings, latents, sex, prototypes)
    assert fitted.groups.tolist() == groups
    assert fitted.groups.dtype == np.int32


def test_embeddings_that_vary_in_a_plane_give_a_finite_map(linear):
    """Components that are 0 for all voices, as the embedding of an untrained head has, get the weight 0."""
    embeddings, latents, sex, *_ = linear
    flat = np.concatenate([embeddings, np.zeros((COUNT, 3), np.float32)], axis=1)
    fitted = fit_latent_map(flat, latents, sex, prototypes=2)
    assert np.isfinite(fitted.weight).all()
    assert (fitted.weight[:, :, DIM:] == 0).all()
    np.testing.assert_allclose(predict(fitted, flat, sex), latents, atol=0.05)
