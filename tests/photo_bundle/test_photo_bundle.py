"""A bundle whose bank comes from inverted photographs."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tests.support.optional_parts import optional_parts
from voicestyle.bundle import NETWORKS, Bundle, write_bundle
from voicestyle.cli import main
from voicestyle.errors import BundleError
from voicestyle.manifest import FRONT_END
from voicestyle.offline import generate_face
from voicestyle.options import Options
from voicestyle.photo_bundle import build_photo_bundle, cluster
from voicestyle.pipeline import Pipeline


@pytest.fixture
def latents(tmp_path):
    def write(*shape):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        torch.save({"latents": values, "videos": [f"{i}.jpg" for i in range(shape[0])]}, tmp_path / "latents.pt")
        return tmp_path / "latents.pt"

    return write


@pytest.mark.parametrize("shape", [(25, 512), (25, 2, 512)])
def test_networks_are_the_base_bundles_and_the_bank_is_new(tiny_bundle, latents, tmp_path, samples, shape):
    folder = tmp_path / "bundle"
    manifest = build_photo_bundle(folder, tiny_bundle, latents(*shape))
    for name in NETWORKS:
        assert (folder / name).read_bytes() == (tiny_bundle / name).read_bytes()
    bundle = Bundle.load(folder)
    assert bundle.latent_bank.latents.shape == shape
    assert manifest.latent_rows == (None if len(shape) == 2 else 2)
    assert 3 <= manifest.prototypes <= 5  # the square root of 25, less empty ones
    assert set(bundle.latent_bank.assignments.tolist()) == set(range(manifest.prototypes))
    assert "25 photographs" in manifest.card
    assert manifest.version != Bundle.load(tiny_bundle).manifest.version
    face = generate_face(Pipeline.load(folder, capacity=1), samples / "slt.wav", Options(steps=2))
    assert len(face.trace) == 2


def test_parts_that_belong_to_the_bases_bank_are_left_out(latents, tmp_path, monkeypatch):
    write_bundle(tmp_path / "base", **optional_parts(with_prior=True))
    monkeypatch.setattr("voicestyle.cli.build.run_build", lambda *_, **__: SimpleNamespace(latents=latents(25, 512)))
    arguments = [tmp_path, "--base", tmp_path / "base", "-o", tmp_path / "bundle"]
    done = CliRunner().invoke(main, ["bundle", "photos", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert (
        f"left out: latent_map.npz, latent_prior.npz, mapper.pt, which belong to the latent bank of {tmp_path / 'base'}"
    ) in done.output
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.front_end is not None
    assert (bundle.latent_map, bundle.latent_prior, bundle.mapper) == (None, None, None)
    assert (tmp_path / "bundle" / FRONT_END).read_bytes() == (tmp_path / "base" / FRONT_END).read_bytes()


def test_the_same_latents_give_the_same_bytes(tiny_bundle, latents, tmp_path):
    digests = []
    for name in ("one", "two"):
        build_photo_bundle(tmp_path / name, tiny_bundle, latents(12, 512), prototypes=4)
        files = sorted((tmp_path / name).iterdir())
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("shape", "prototypes", "message"),
    [
        ((2, 512), None, "at least 3 latents, .* got 2"),
        ((9, 512), 10, "to 9 .*, got 10"),
        ((9, 5, 512), None, r"w \[512\] or w\+ \[2, 512\], got \[5, 512\]"),
        ((9, 256), None, r"w \[512\] or w\+ \[2, 512\], got \[256\]"),
    ],
)
def test_latents_that_do_not_fit(tiny_bundle, latents, tmp_path, shape, prototypes, message):
    with pytest.raises(BundleError, match=message):
        build_photo_bundle(tmp_path / "bundle", tiny_bundle, latents(*shape), prototypes=prototypes)
    assert not (tmp_path / "bundle").exists()


def test_clusters_are_not_empty_and_hold_the_nearest():
    points = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)
    points[10:] = points[:1]  # fewer different points than clusters
    centroids, assignments = cluster(points, 15)
    assert set(assignments.tolist()) == set(range(len(centroids)))
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    np.testing.assert_array_equal((unit @ centroids.T).argmax(axis=1), assignments)
