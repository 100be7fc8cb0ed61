"""The latent prior: its file, its fit, and the directions that predict values, on made-up latents."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from voicestyle.errors import BundleError
from voicestyle.latent_prior import LatentPrior, predictive_directions

DIM = 6


def latents(count=400, dim=DIM):
    """Correlated latents whose components have standard deviations from about 0.1 to 3, around a mean."""
    source = np.random.default_rng(1)
    mixing = np.linalg.qr(source.standard_normal((dim, dim)))[0] * np.geomspace(0.1, 3, dim)
    return source.standard_normal((count, dim)) @ mixing.T + 5


def arrays(**change):
    whitening, mean = np.eye(3, 4, dtype=np.float32), np.zeros(4, np.float32)
    return {"whitening": whitening, "mean": mean, "held": np.eye(2, 4, dtype=np.float32)} | change


def test_read_returns_what_was_written(tmp_path):
    path = tmp_path / "latent_prior.npz"
    for held in (None, np.ones((1, DIM))):
        prior = LatentPrior.fit(latents(), held)
        prior.write(path)
        again = LatentPrior.read(path)
        for name in ("whitening", "mean", "held"):
            np.testing.assert_array_equal(getattr(again, name), getattr(prior, name))
            assert getattr(again, name).dtype == np.float32
    assert again.dim == DIM
    assert [each.name for each in tmp_path.iterdir()] == ["latent_prior.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"whitening": np.eye(3, 4)}, r"float32 arrays whitening \[R, D\].*got whitening float64 \[3, 4\]"),
        ({"whitening": np.float32(1)}, r"got whitening float32 \[\]"),
        ({"mean": np.zeros(5, np.float32)}, r"mean float32 \[5\]"),
        ({"held": np.zeros(4, np.float32)}, r"held float32 \[4\]"),
        ({"held": np.zeros((2, 3), np.float32)}, r"held float32 \[2, 3\]"),
        ({"mean": np.full(4, np.nan, np.float32)}, "mean of a latent prior must be finite"),
        ({"whitening": np.zeros((0, 4), np.float32)}, "whitening must have 1 to 4 rows, one per direction, got 0"),
        ({"whitening": np.ones((5, 4), np.float32)}, "whitening must have 1 to 4 rows, one per direction, got 5"),
        ({"held": np.full((1, 4), 0.6, np.float32)}, "orthonormal to 1e-4, got an error of 0.44"),
        ({"held": np.ones((5, 4), np.float32)}, "orthonormal"),
    ],
)
def test_wrong_arrays_are_refused_in_memory_and_in_a_file(tmp_path, change, message):
    with pytest.raises(BundleError, match=message):
        LatentPrior(**arrays(**change))
    path = tmp_path / "latent_prior.npz"
    np.savez(path, **arrays(**change))
    with pytest.raises(BundleError, match=rf"latent_prior\.npz: .*{message}"):
        LatentPrior.read(path)


def npz(**content):
    file = io.BytesIO()
    np.savez(file, **content)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


class Trap:
    """Unpickling it calls `sprung`."""

    def __reduce__(self):
        return sprung, ()


def sprung():
    raise AssertionError("a file was unpickled")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a .npz file of plain arrays"),
        (b"not an archive", "must be a .npz file of plain arrays"),
        (npy(np.zeros(3, np.float32)), "must be a .npz file of plain arrays: a single array"),
        (npz(**arrays())[:-40], "must be a .npz file of plain arrays"),
        (npz(**arrays())[:200] + b"xxxx" + npz(**arrays())[204:], "must be a .npz file of plain arrays"),
        (npz(**arrays(mean=np.array([Trap()], object))), "must be a .npz file of plain arrays: Object arrays"),
        (pickle.dumps(Trap()), "must be a .npz file of plain arrays"),
        (zipped(whitening=b"", mean=b"", held=b""), "must be a .npz file of plain arrays: whitening is none"),
        (npz(), "must have the arrays whitening, mean, held, got none"),
        (npz(mean=np.zeros(4, np.float32)), "must have the arrays whitening, mean, held, got mean"),
        (npz(**arrays(more=np.zeros(1))), "must have the arrays .*, got held, mean, more, whitening"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "latent_prior.npz"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=rf"latent_prior\.npz {message}") as caught:
        LatentPrior.read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        LatentPrior.read(tmp_path / "missing.npz")


def test_many_latents_are_whitened():
    samples = latents(20_000)
    prior = LatentPrior.fit(samples)
    np.testing.assert_allclose(prior.mean, samples.mean(axis=0), rtol=1e-5)
    whitened = (samples - samples.mean(axis=0)) @ prior.whitening.T
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(DIM), atol=0.05)  # shrunk a little
    assert (whitened**2).mean() == pytest.approx(1, abs=0.01)
    scales = np.linalg.norm(prior.whitening, axis=1)
    assert (np.diff(scales) > 0).all()  # the direction of the largest variance first
    assert prior.held.shape == (0, DIM)


@pytest.mark.parametrize(("count", "dim"), [(300, 6), (12, 6), (5, 20), (2, 8)])
def test_the_covariance_is_that_of_ledoit_and_wolf(count, dim):
    covariance = pytest.importorskip("sklearn.covariance").ledoit_wolf
    samples = latents(count, dim)
    expected, _ = covariance(samples)
    prior = LatentPrior.fit(samples)
    kept = prior.whitening.astype(np.float64)
    if len(kept) == dim:
        np.testing.assert_allclose(np.linalg.inv(kept.T @ kept), expected, rtol=1e-4, atol=1e-5)
    else:  # two latents show no error of their covariance, which is not shrunk
        assert len(kept) == 1
        assert 1 / (kept**2).sum() == pytest.approx(np.linalg.eigvalsh(expected)[-1], rel=1e-5)


def test_directions_without_variance_are_left_out():
    assert len(LatentPrior.fit(latents(3)).whitening) == DIM  # shrinking gives every direction some variance
    pair = LatentPrior.fit([[1.0, 2.0, 3.0], [1.0, 2.0, 5.0]])
    np.testing.assert_allclose(np.abs(pair.whitening), [[0, 0, 1]], atol=1e-6)


def test_rows_of_w_plus_count_as_latents():
    samples = latents(40)
    flat, rows = LatentPrior.fit(samples), LatentPrior.fit(samples.reshape(10, 4, DIM))
    np.testing.assert_array_equal(flat.whitening, rows.whitening)
    np.testing.assert_array_equal(flat.mean, rows.mean)


def test_held_rows_are_orthonormal_and_span_the_directions():
    directions = np.random.default_rng(2).standard_normal((3, DIM)) * [[1e-3], [1], [1e3]]
    held = LatentPrior.fit(latents(), directions).held.astype(np.float64)
    np.testing.assert_allclose(held @ held.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(directions @ held.T @ held, directions, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("samples", "held", "message"),
    [
        (np.ones((5, 3)) * 0.1, None, "two different latents or more, got 5 equal ones"),
        (np.ones((1, 3)), None, "two different latents or more, got 1 equal ones"),
        (np.zeros((0, 3)), None, r"latents must have \[N, D\] or \[N, L, D\] and not be empty, got \[0, 3\]"),
        (np.zeros(3), None, r"got \[3\]"),
        ([[1.0, np.inf], [0.0, 0.0]], None, "latents must be finite"),
        (np.eye(3), np.zeros((1, 3)), "linearly independent, got 1 of which 0 are"),
        (np.eye(3), [[1, 2, 3], [2, 4, 6]], "linearly independent, got 2 of which 1 are"),
        (np.eye(2), np.ones((3, 2)), "linearly independent, got 3 of which 1 are"),
        (np.eye(3), np.ones((1, 2)), r"held must have the shape \[H, 3\], got \[1, 2\]"),
        (np.eye(3), [[np.nan, 0, 0]], "held must be finite"),
    ],
)
def test_a_fit_refuses_bad_input(samples, held, message):
    with pytest.raises(ValueError, match=message):
        LatentPrior.fit(samples, held)


def test_predictive_directions_find_what_a_value_depends_on():
    samples = latents(2000)
    source = np.random.default_rng(3)
    truth = source.standard_normal((2, DIM))
    values = samples @ truth.T + 10 + 0.01 * source.standard_normal((2000, 2))
    found = predictive_directions(samples, values, 1e-6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, truth, atol=0.01)


def test_predictive_directions_are_those_of_ridge_regression():
    ridge = pytest.importorskip("sklearn.linear_model").Ridge
    samples, values = latents(50), np.random.default_rng(4).standard_normal((50, 3))
    # There, the penalty is added to the sum over samples and not to their mean.
    penalty = 0.3 * samples.var(axis=0).mean() * len(samples)
    expected = ridge(alpha=penalty).fit(samples, values).coef_
    np.testing.assert_allclose(predictive_directions(samples, values, 0.3), expected, rtol=1e-4, atol=1e-6)


def test_predictions_are_constant_where_the_directions_are_held():
    samples, source = latents(300), np.random.default_rng(5)
    values = np.tanh(samples @ source.standard_normal((DIM, 2))) + source.standard_normal((300, 2))
    directions = predictive_directions(samples, values, 0.01)
    held = LatentPrior.fit(samples, directions).held
    w, move = samples[0], source.standard_normal(DIM)
    moved = w + move - held.T @ (held @ move)
    assert np.linalg.norm(moved - w) > 1
    np.testing.assert_allclose(directions @ moved, directions @ w, atol=1e-5)
    assert np.abs(directions @ move).max() > 0.1


@pytest.mark.parametrize(
    ("values", "ridge", "message"),
    [
        (np.zeros((4, 1)), 1, r"values must have one row per latent \(3\), got 4"),
        (np.zeros(3), 1, r"values must have two axes and not be empty, got \[3\]"),
        (np.full((3, 1), 0.1), 1, "values must vary, got 3 equal ones"),
        ([[1, 2], [2, 2], [3, 2]], 1, "values must vary, got 3 equal ones"),
        ([[1], [np.nan], [0]], 1, "values must be finite"),
        ([[1], [2], [0]], 0, "ridge must be a number above 0, got 0"),
        ([[1], [2], [0]], float("nan"), "ridge must be a number above 0, got nan"),
    ],
)
def test_predictive_directions_refuse_bad_input(values, ridge, message):
    with pytest.raises(ValueError, match=message):
        predictive_directions(np.eye(3), values, ridge)


def test_predictive_directions_need_latents_that_vary():
    with pytest.raises(ValueError, match="latents must vary, got 3 equal ones"):
        predictive_directions(np.full((3, 2), 0.1), [[1], [2], [0]], 1)
