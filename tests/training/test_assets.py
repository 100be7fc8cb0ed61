"""The committed files of the demo: written by a training, read back by the bundle's builder."""

import json
import zipfile

import numpy as np
import pytest
import torch

from voicestyle import demo_bundle
from voicestyle.demo_encoders import FaceEncoder, FaceHead, VoiceHead
from voicestyle.errors import BundleError
from voicestyle.face_networks import DlibResNet
from voicestyle.latent_map import LatentMap
from voicestyle.training.assets import DemoAssets, embed_faces, rounded_to_float16, write_assets
from voicestyle.training.clusters import Clusters
from voicestyle.voice_networks import Ge2e

DIM, HIDDEN, FACES = 8, 12, 20


@pytest.fixture(scope="module")
def assets():
    torch.manual_seed(0)
    voice, face = VoiceHead(DIM), FaceEncoder(DlibResNet(), FaceHead(DIM, HIDDEN))
    torch.nn.init.constant_(voice.sex_length, 0.7)
    torch.nn.init.normal_(face.head.mean)
    torch.nn.init.uniform_(face.head.scale, 0.5, 2)
    face.eval()
    rounded_to_float16(face)
    rng = np.random.default_rng(0)
    embeddings = torch.nn.functional.normalize(torch.randn(FACES, DIM), dim=1)
    return DemoAssets(
        voice_head=voice,
        face_encoder=face,
        seeds=np.arange(100, 100 + FACES, dtype=np.int64),
        clusters=Clusters(centroids=embeddings[:4].clone(), assignments=torch.arange(FACES) % 4),
        embeddings=embeddings,
        latent_map=LatentMap(
            rng.standard_normal((2, 5, DIM)).astype(np.float32),
            rng.standard_normal((2, 5)).astype(np.float32),
            np.array([0, 0, 1, 1], np.int32),
        ),
        directions=rng.standard_normal((3, 5)).astype(np.float32),
        card={"embedding_dim": DIM, "hidden": HIDDEN, "measured": {"faces": FACES}},
    )


@pytest.fixture(scope="module")
def folder(assets, tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "assets"
    write_assets(path, assets)
    return path


@pytest.fixture(scope="module")
def ge2e():
    torch.manual_seed(1)
    return Ge2e().eval()


@pytest.fixture
def read(folder, ge2e, monkeypatch):
    """`read(folder)`: the encoders, with a random voice network in place of the wheel's."""
    monkeypatch.setattr(demo_bundle, "read_ge2e", lambda wheel: ge2e)
    return lambda assets=folder: demo_bundle.read_encoders(folder / "no wheel", assets)


def test_the_encoders_read_back_are_those_written(assets, read):
    voice, face = read()
    assert not voice.training
    assert not face.training
    for name, value in assets.face_encoder.state_dict().items():
        assert torch.equal(face.state_dict()[name], value), name
    for name, value in assets.voice_head.state_dict().items():
        assert torch.equal(voice.head.state_dict()[name], value), name


@torch.inference_mode()
def test_the_voice_encoder_read_back_gives_the_same_embeddings(assets, read, ge2e):
    voice, _ = read()
    features = torch.rand(1, 1, 40, 160, generator=torch.Generator().manual_seed(2))
    assert torch.equal(voice(features), assets.voice_head(ge2e(features)))
    assert voice(features).shape == (1, DIM)


def test_no_file_holds_a_pickle(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "encoders.json",
        "encoders.npz",
        "faces.npz",
        "first_latents.npz",
    ]
    for path in folder.glob("*.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            assert arrays.files
            assert all(arrays[name].dtype != object for name in arrays.files)
        with zipfile.ZipFile(path) as members:
            assert all(name.endswith(".npy") for name in members.namelist())


def test_only_the_face_networks_matrices_are_stored_in_float16(folder):
    """A voice's head is small, and a rounded discriminant would move the sexes."""
    with np.load(folder / "encoders.npz", allow_pickle=False) as arrays:
        stored = {name: arrays[name] for name in arrays.files}
    for name, value in stored.items():
        half = name.startswith("face.") and value.ndim > 1
        assert value.dtype == (np.float16 if half else np.float32), name


def test_faces_and_card_are_stored(folder, assets):
    with np.load(folder / "faces.npz", allow_pickle=False) as faces:
        assert faces["seeds"].dtype == np.uint32
        assert faces["seeds"].tolist() == list(range(100, 100 + FACES))
        assert faces["assignments"].dtype == np.int32
        assert faces["assignments"].tolist() == assets.clusters.assignments.tolist()
        np.testing.assert_array_equal(faces["centroids"], assets.clusters.centroids.numpy())
        np.testing.assert_allclose(faces["face_embeddings"], assets.embeddings.numpy(), atol=1e-3)
        np.testing.assert_array_equal(faces["held"], assets.directions)
    assert json.loads((folder / "encoders.json").read_text()) == assets.card
    read_back = LatentMap.read(folder / "first_latents.npz")
    np.testing.assert_array_equal(read_back.weight, assets.latent_map.weight)
    np.testing.assert_array_equal(read_back.groups, assets.latent_map.groups)


@pytest.mark.parametrize("change", [{"embedding_dim": DIM + 1}, {"hidden": HIDDEN + 1}])
def test_another_description_is_an_error(folder, read, tmp_path, change):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    card = json.loads((folder / "encoders.json").read_text()) | change
    (tmp_path / "encoders.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match="does not fit"):
        read(tmp_path)


def test_a_missing_weight_is_named(folder, read, tmp_path):
    (tmp_path / "encoders.json").write_bytes((folder / "encoders.json").read_bytes())
    with np.load(folder / "encoders.npz", allow_pickle=False) as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != "voice.sex.bias"}
    np.savez(tmp_path / "encoders.npz", **kept)
    with pytest.raises(BundleError, match=r"does not fit encoders\.json: .*sex\.bias"):
        read(tmp_path)


def test_rounding_changes_matrices_alone():
    torch.manual_seed(3)
    head = FaceHead(DIM, HIDDEN)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    rounded_to_float16(head)
    for name, value in head.state_dict().items():
        if value.ndim > 1:
            assert not torch.equal(value, before[name])
            assert torch.equal(value, before[name].half().float())
        else:
            assert torch.equal(value, before[name])


def test_faces_are_embedded_one_by_one():
    class Mean(torch.nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (3, 8, 8, 3), np.uint8)
    embeddings = embed_faces(Mean(), iter(images))
    expected = images.astype(np.float64).mean((1, 2)) / 127.5 - 1
    np.testing.assert_allclose(embeddings, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-4)
