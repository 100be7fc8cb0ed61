"""Bundles whose latent bank holds w+: a latent row for each layer of the generator."""

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from voicestyle.bundle import Bundle, write_bundle
from voicestyle.errors import BundleError
from voicestyle.latent_bank import LatentBank
from voicestyle.offline import generate_face
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline

ROWS = 2  # of the tiny generator


@pytest.fixture
def with_rows(parts):
    latents = np.random.default_rng(1).standard_normal((40, ROWS, 512)).astype(np.float32)
    return parts | {"latents": latents, "manifest": replace(parts["manifest"], latent_rows=ROWS)}


def test_a_face_is_optimised_in_w_plus(with_rows, samples, tmp_path):
    write_bundle(tmp_path / "bundle", **with_rows)
    pipeline = Pipeline.load(tmp_path / "bundle", capacity=1)
    prepared = pipeline.prepare(samples / "slt.wav", Options(seed=1))
    assert prepared.first_latent.shape == (ROWS, 512)
    face = generate_face(pipeline, samples / "slt.wav", Options(seed=1))
    assert len(face.trace) == 6
    assert face.similarity != face.trace[0]


def test_w_plus_of_equal_rows_starts_like_w(with_rows, parts, samples, tmp_path):
    traces = []
    latents = np.repeat(parts["latents"][:, None], ROWS, axis=1)
    for name, given in (("w", parts), ("w_plus", with_rows | {"latents": latents})):
        write_bundle(tmp_path / name, **given)
        pipeline = Pipeline.load(tmp_path / name, capacity=1)
        embedding = pipeline.prepare(samples / "slt.wav", Options()).voice.embedding
        bundle = Bundle.load(tmp_path / name)
        rows = bundle.latent_bank.first_rows(bundle.nearest_prototypes(embedding.numpy()), 8)
        with torch.no_grad():
            w = torch.from_numpy(bundle.latent_bank.mean(rows))[None]
            traces.append(bundle.generator(w, [torch.zeros(1, 1, 8, 8)]))
    torch.testing.assert_close(*traces)


def test_rows_must_be_those_of_the_generator(with_rows, tmp_path):
    latents = with_rows["latents"]
    cases = (
        ({"latents": latents[:, :1]}, r"shape of the latents in latent_bank.npy must be \(2, 512\)"),
        (
            {"latents": latents[:, :1], "manifest": replace(with_rows["manifest"], latent_rows=1)},
            "latent_rows of the generator must be 1 as in bundle.json, got 2",
        ),
    )
    for change, message in cases:
        with pytest.raises(BundleError, match=message):
            write_bundle(tmp_path / "bundle", **with_rows | change)
    assert not (tmp_path / "bundle").exists()


def test_weighted_means_of_w_plus():
    latents = np.random.default_rng(2).standard_normal((3, ROWS, 4)).astype(np.float32)
    bank = LatentBank(latents, np.zeros(3, np.int32))
    weights = np.array([0.5, 0.3, 0.2], np.float32)
    np.testing.assert_allclose(bank.mean(np.arange(3), weights), sum(weights[i] * latents[i] for i in range(3)), 1e-6)
    np.testing.assert_allclose(bank.mean(np.arange(2)), latents[:2].mean(axis=0), rtol=1e-6)
