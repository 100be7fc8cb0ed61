import json
import shutil

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from voicestyle.bundle import Bundle, write_bundle
from voicestyle.errors import BundleError, InputError
from voicestyle.manifest import FILES, Manifest
from voicestyle.options import Options, Settings
from voicestyle.prototypes import Prototypes


@pytest.fixture
def altered(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "copy")


def test_a_written_bundle_loads_with_all_its_parts(tiny_bundle, parts):
    bundle = Bundle.load(tiny_bundle)
    assert bundle.manifest == replace(parts["manifest"], files=bundle.manifest.files)
    assert set(bundle.manifest.files) == set(FILES)
    assert isinstance(bundle.latent_bank.latents, np.memmap)
    np.testing.assert_array_equal(bundle.latent_bank.latents, parts["latents"])


def test_compiled_modules_equal_eager_ones_with_gradients(tiny_bundle, parts):
    bundle = Bundle.load(tiny_bundle)
    latent, noise = torch.randn(2, 512), [torch.randn(2, 1, 8, 8)]
    log_mel = torch.randn(2, 1, 64, 800)
    torch.testing.assert_close(bundle.voice_encoder(log_mel), parts["voice_encoder"](log_mel))
    torch.testing.assert_close(bundle.generator.render(latent, noise, 64), parts["generator"].render(latent, noise, 64))
    gradients = []
    for generator, encoder in (
        (bundle.generator, bundle.face_encoder),
        (parts["generator"], parts["face_encoder"]),
    ):
        leaf = latent.clone().requires_grad_()
        for _ in range(3):  # TorchScript changes its plan in its first calls
            gradient = torch.autograd.grad(encoder(generator(leaf, noise)).square().sum(), leaf)[0]
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_a_mapper_is_one_more_file(with_mapper, parts, tmp_path):
    write_bundle(tmp_path / "bundle", **with_mapper)
    bundle = Bundle.load(tmp_path / "bundle")
    assert set(bundle.manifest.files) == {*FILES, "mapper.pt"}
    voices, latents = torch.randn(3, 8), torch.randn(3, 512)
    torch.testing.assert_close(bundle.mapper(voices, latents), with_mapper["mapper"](voices, latents))
    with pytest.raises(BundleError, match=r"must give a sha256 for mapper\.pt"):
        write_bundle(tmp_path / "without", **with_mapper | {"mapper": None})
    with pytest.raises(BundleError, match=r"lists 'mapper\.pt', which is not a file of this bundle"):
        write_bundle(tmp_path / "too_much", **with_mapper | {"manifest": parts["manifest"]})


def test_a_bundle_without_a_mapper_has_none(tiny_bundle):
    bundle = Bundle.load(tiny_bundle)
    assert (bundle.mapper, bundle.manifest.mapper) == (None, False)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(altered, name):
    (altered / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.load(altered)


@pytest.mark.parametrize("name", FILES)
def test_one_altered_byte_is_named(altered, name):
    content = bytearray((altered / name).read_bytes())
    content[len(content) // 2] ^= 1
    (altered / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} was altered: sha256 must be"):
        Bundle.load(altered)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "format must be 4, got 1; build the bundle again"),
        ({"colour": "red"}, "unknown field 'colour'; the nearest known one is"),
        ({"default_size": 99}, r"default_size must be one of \[32, 64\], got 99"),
        ({"default_steps": 41}, "default_steps must be 1 to 40, got 41"),
        ({"instance_choice": "best"}, "instance_choice must be one of first, nearest, weighted, got best"),
        ({"nearest": 9}, "nearest must be 1 to 5, got 9"),
        ({"embedding_dim": 512}, "embedding_dim of prototypes.faiss must be 512 as in bundle.json, got 8"),
        ({"sizes": [32, 64, 128]}, "sizes of the generator must be"),
        ({"image_size": 256}, "image_size must be at most the 32 pixels"),
        ({"limits": {"minutes": 3}}, "unknown field `minutes` - at `\\$.limits`"),
        ({"prototypes": "5"}, "Expected `int`, got `str` - at `\\$.prototypes`, got '5'"),
        ({"nearest": 0}, "Expected `int` >= 1 - at `\\$.nearest`, got 0"),
        ({"files": {}}, "must give a sha256 for assignments.npy"),
    ],
)
def test_an_invalid_manifest_is_one_clear_error(altered, change, message):
    path = altered / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=message):
        Bundle.load(altered)


def test_a_missing_field_or_manifest_is_one_clear_error(altered, tmp_path):
    path = altered / "bundle.json"
    values = json.loads(path.read_text())
    del values["latent_std"]
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match="missing required field `latent_std`"):
        Manifest.read(altered)
    for text in ("{", "[", "[1,"):
        path.write_text(text)
        with pytest.raises(BundleError, match="is not JSON"):
            Manifest.read(altered)
    with pytest.raises(BundleError, match="no bundle in"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"assignments": np.zeros(40, np.int32)}, "every prototype must have an image, got none for"),
        ({"assignments": np.arange(40, dtype=np.int32) % 6}, "assignments.npy must be in 0 … 4, got 5"),
        ({"latents": np.zeros((40, 8), np.float32)}, "shape of the latents in latent_bank.npy must be \\(512,\\)"),
    ],
)
def test_inconsistent_parts_leave_nothing_behind(tmp_path, parts, change, message):
    with pytest.raises(BundleError, match=message):
        write_bundle(tmp_path / "new", **parts | change)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_replaced_as_a_whole(altered, parts):
    write_bundle(altered, **parts | {"manifest": replace(parts["manifest"], version="8")})
    assert Bundle.load(altered).manifest.version == "8"
    assert [path.name for path in altered.parent.iterdir()] == [altered.name]


def test_the_bundle_fills_in_and_limits_options(parts):
    manifest = parts["manifest"]
    assert manifest.resolve(Options()) == Settings(steps=6, seed=0, size=64)
    assert manifest.resolve(Options(steps=2, seed=5, size=32)) == Settings(steps=2, seed=5, size=32)
    for options, message in (
        (Options(steps=41), "steps must be 1 to 40, got 41"),
        (Options(size=33), "size must be one of 32, 64, got 33"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            manifest.resolve(options)
        assert (caught.value.code, caught.value.status) == ("bad_option", 400)


def test_prototypes_ignore_norms_and_come_nearest_first():
    centroids = np.eye(4, dtype=np.float32) * np.array([[1], [100], [0.01], [5]], np.float32)
    index = Prototypes.from_centroids(centroids)
    assert index.nearest(np.array([0.1, 0.5, 0.9, 0], np.float32) * 40, 3) == [2, 1, 0]
    assert (len(index), index.dim) == (4, 4)


def test_instances_are_the_first_rows_of_the_prototypes(tiny_bundle, parts):
    bank = Bundle.load(tiny_bundle).latent_bank
    rows = bank.first_rows([3, 1], 5)
    assert rows.tolist() == [1, 3, 6, 8, 11]
    np.testing.assert_allclose(bank.mean(rows), parts["latents"][rows].mean(axis=0), rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match=r"no image belongs to the prototypes \[9\]"):
        bank.first_rows([9], 5)
    with pytest.raises(ValueError, match="has no face embeddings"):
        bank.nearest_rows([3, 1], 5, np.ones(8, np.float32))


def test_instances_are_the_rows_nearest_to_the_voice(tmp_path, parts):
    embeddings = np.random.default_rng(1).standard_normal((40, 8))
    manifest = replace(parts["manifest"], instance_choice="nearest")
    write_bundle(tmp_path / "near", **parts | {"manifest": manifest, "embeddings": embeddings})
    bank = Bundle.load(tmp_path / "near").latent_bank
    voice = np.random.default_rng(2).standard_normal(8).astype(np.float32)
    cosines = embeddings @ voice / np.linalg.norm(embeddings, axis=1)
    candidates = sorted((row for row in range(40) if row % 5 in (1, 3)), key=lambda row: -cosines[row])
    assert bank.nearest_rows([3, 1], 5, voice).tolist() == sorted(candidates[:5])
    with pytest.raises(BundleError, match="sha256 for face_embeddings.npy"):
        write_bundle(tmp_path / "without", **parts | {"manifest": manifest})
    with pytest.raises(BundleError, match="lists 'face_embeddings.npy', which is not a file of this bundle"):
        write_bundle(tmp_path / "too_much", **parts | {"embeddings": embeddings})
