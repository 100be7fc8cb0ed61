"""Training data: speakers, generated faces with their labels, and random views of them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.tiny_bundle import TinyGenerator
from tests.support.tiny_face_network import TinyNetwork
from voicestyle.generators import face_z
from voicestyle.training.demo_faces import FaceImages, Faces, draw_images, speaker_latents
from voicestyle.training.errors import TrainingDataError
from voicestyle.training.faces import FaceCache
from voicestyle.training.labels import FEMALE, MALE, UNKNOWN, FaceLabels, label_faces
from voicestyle.training.options import FaceOptions
from voicestyle.training.pairing import FaceAxes
from voicestyle.training.voices import hold_out, read_speakers


def voices_folder(folder: Path, per_sex: int = 6) -> Path:
    rows = ["file,speaker,sex"]
    for i in range(2 * per_sex):
        (folder / f"{i}.flac").touch()
        rows.append(f"{i}.flac,{i},{'FM'[i % 2]}")
    (folder / "speakers.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_face_z_depends_only_on_the_seed():
    together, alone = face_z([0, 7, 3]), face_z([7])
    assert together.shape == (3, 512)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[2])


def test_a_folder_without_speakers_csv_is_rejected(tmp_path: Path):
    with pytest.raises(TrainingDataError, match=r"must contain speakers\.csv"):
        read_speakers(tmp_path)


def test_an_invalid_speakers_csv_is_rejected(tmp_path: Path):
    folder = voices_folder(tmp_path)
    table = folder / "speakers.csv"
    good = table.read_text()
    for text, message in [
        (good.replace("speaker,sex", "speaker,gender"), "columns file,speaker,sex"),
        (good.replace("0.flac,0,F", "0.flac,0,X"), "sex must be F or M, got 'X'"),
        (good.replace("0.flac,0,F", "none.flac,0,F"), r"lists none\.flac"),
        (good.replace("0.flac,0,F", "0.flac,1,F"), "each speaker once"),
    ]:
        table.write_text(text)
        with pytest.raises(TrainingDataError, match=message):
            read_speakers(folder)


def test_the_same_speakers_are_always_held_out(tmp_path: Path):
    speakers = read_speakers(voices_folder(tmp_path))
    training, held = hold_out(speakers, 2)
    assert hold_out(list(speakers), 2) == (training, held)
    assert sorted(speaker.sex for speaker in held) == ["F", "F", "M", "M"]
    assert {*training, *held} == set(speakers)
    with pytest.raises(TrainingDataError, match="at least 7 speakers of sex F"):
        hold_out(speakers, 5)


def grey_of(z: np.ndarray) -> np.ndarray:
    return np.tile(z[:, :1, None, None].clip(-1, 1), (1, 3, 8, 8))


def test_an_interrupted_face_cache_is_resumed(tmp_path: Path):
    def interrupted(steps: range):
        yield from list(steps)[:2]

    first = FaceCache(tmp_path / "two", 8, "test")
    first.draw(grey_of, 40, interrupted)
    assert first.done == 8
    FaceCache(tmp_path / "two", 8, "test").draw(grey_of, 40, list)
    FaceCache(tmp_path / "one", 8, "test").draw(grey_of, 40, list)
    one, two = (FaceCache(tmp_path / name, 8, "test") for name in ("one", "two"))
    assert one.done == two.done == 40
    assert np.array_equal(one.images[:40], two.images[:40])
    expected = np.rint((float(face_z([5])[0, 0].clamp(-1, 1)) + 1) * 127.5)
    assert int(one.images[5, 0, 0, 0]) == int(expected)


def test_faces_of_another_generator_are_rejected(tmp_path: Path):
    FaceCache(tmp_path, 8, "one head").draw(grey_of, 4, list)
    with pytest.raises(TrainingDataError, match="must come from another head"):
        FaceCache(tmp_path, 8, "another head")


class ByBrightness:
    """A label model: dark images are men, light ones women of 30 years; black is no face, white a child."""

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, image: np.ndarray) -> list[dict[str, dict[str, object]]]:
        self.calls += 1
        light = int(image.mean())
        if light == 0:
            return []
        sex = {"value": "male" if light < 128 else "female", "confidence": 99}
        return [{"gender": sex, "age": {"value": 8 if light == 255 else 30, "confidence": 50}}]


def test_confident_adults_are_selected_balanced_by_sex(tmp_path: Path):
    images = np.stack([np.full((4, 4, 3), light, np.uint8) for light in (0, 50, 200, 255, 60, 70, 210)])
    model = ByBrightness()
    labels = label_faces(images, tmp_path / "labels.npz", list, lambda: model)
    assert labels.sex.tolist() == [UNKNOWN, MALE, FEMALE, FEMALE, MALE, MALE, FEMALE]
    options = dataclasses.replace(FaceOptions(), least_faces_per_sex=2)
    assert labels.adults(options, 7).tolist() == [1, 2, 4, 6]
    one = dataclasses.replace(options, least_faces_per_sex=1)
    assert labels.adults(one, 4).tolist() == [1, 2]
    again = label_faces(images, tmp_path / "labels.npz", list, lambda: model)
    assert model.calls == len(images)
    assert np.array_equal(again.age, labels.age)
    with pytest.raises(TrainingDataError, match="2 women and 3 men of 7 faces: draw more"):
        labels.adults(dataclasses.replace(options, least_faces_per_sex=3), 7)


def test_uncertain_labels_are_excluded():
    labels = FaceLabels(
        np.array([0, 1, 0], np.int8), np.array([99, 99, 60], np.int16), np.array([30, 30, 30], np.int16)
    )
    assert labels.adults(dataclasses.replace(FaceOptions(), least_faces_per_sex=1), 3).tolist() == [0, 1]


DIM, CODES, BANK = 12, 3, 60


@pytest.fixture(scope="module")
def faces() -> Faces:
    """A bank of noise, in latents and images alike: every second of 120 drawn faces."""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((BANK, DIM)).astype(np.float32)
    return Faces(
        images=rng.integers(0, 256, (2 * BANK, 32, 32, 3), np.uint8),
        rows=np.arange(0, 2 * BANK, 2),
        sex=np.arange(BANK) % 2,
        latents=latents,
        descriptors=latents[:, :8] + 0.1 * rng.standard_normal((BANK, 8)).astype(np.float32),
        directions=rng.standard_normal((1, DIM)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def face_axes(faces: Faces) -> FaceAxes:
    held = faces.directions.astype(np.float64)
    return FaceAxes.fit(faces.latents, faces.descriptors, faces.sex, CODES, held=held, components=10)


def test_a_speakers_faces_have_the_speakers_code_and_other_looks(faces: Faces, face_axes: FaceAxes):
    codes = np.eye(CODES)[[0, 1, 2, 0]]
    sex = np.array([0, 1, 0, 1])
    options = dataclasses.replace(FaceOptions(), per_speaker=4, other_looks=0.7)
    latents = speaker_latents(faces, face_axes, codes, sex, options, seed=0)
    assert latents.shape == (4, 4, DIM)
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents[:, 0], face_axes.latents(codes, sex), atol=1e-5)
    apart = np.linalg.norm(latents[:, 1:] - latents[:, :1], axis=2)
    assert apart.min() > 0.1
    half = dataclasses.replace(options, other_looks=0.35)
    nearer = speaker_latents(faces, face_axes, codes, sex, half, seed=0)
    np.testing.assert_allclose(np.linalg.norm(nearer[:, 1:] - nearer[:, :1], axis=2), apart / 2, rtol=1e-3)
    np.testing.assert_array_equal(latents, speaker_latents(faces, face_axes, codes, sex, options, seed=0))
    assert not np.array_equal(latents, speaker_latents(faces, face_axes, codes, sex, options, seed=1))


class NoiselessGenerator(TinyGenerator):
    """Takes an empty list of noise maps, as the demo's generator does at 256 pixels."""

    def forward(self, w: torch.Tensor, noise: list[torch.Tensor]) -> torch.Tensor:
        return super().forward(w, [*noise, torch.zeros(1, 1, 8, 8)])


def test_images_are_drawn_in_the_order_of_their_latents():
    generator = NoiselessGenerator()
    latents = np.random.default_rng(1).standard_normal((3, 2, 512)).astype(np.float32)
    images = draw_images(generator, latents, list)
    assert images.shape == (6, 32, 32, 3)
    assert images.dtype == np.uint8
    alone = generator(torch.from_numpy(latents[1, 1:]), []).clamp(-1, 1)
    expected = (alone[0].permute(1, 2, 0).numpy() + 1) * 127.5
    np.testing.assert_allclose(images[3], expected, atol=0.51)


@pytest.fixture
def images(faces: Faces) -> FaceImages:
    speakers = np.random.default_rng(2).integers(0, 256, (5, 32, 32, 3), np.uint8)
    return FaceImages(speakers, faces)


def test_rows_are_the_speakers_faces_then_the_banks(images: FaceImages, faces: Faces):
    assert len(images) == 5 + BANK
    plain = images.plain(torch.tensor([5, 8]))
    assert plain.shape == (2, 3, 32, 32)
    for pixels, seed in zip(plain, (0, 6), strict=True):
        np.testing.assert_allclose((pixels.permute(1, 2, 0).numpy() + 1) * 127.5, faces.images[seed], atol=1e-3)
    assert not torch.equal(images.views(torch.tensor([5]), torch.Generator().manual_seed(0)), plain[:1])


class CountingNetwork(TinyNetwork):
    """Counts its calls."""

    calls = 0

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(faces)


def test_descriptors_of_views_are_stored_and_reused(images: FaceImages, faces: Faces, tmp_path: Path):
    network, cache, rows = CountingNetwork(), tmp_path / "views.npz", torch.arange(len(images))
    views_of = images.view_descriptors(network, 3, cache, list)
    called = network.calls
    assert called > 0
    drawn = [views_of(rows, torch.Generator().manual_seed(seed)) for seed in range(12)]
    distinct = {tuple(each[7].tolist()) for each in drawn}
    assert len(distinct) == 3
    plain = network(network.crop(images.plain(rows)))[7]
    assert any(np.allclose(plain, each, atol=1e-5) for each in distinct)
    called = network.calls
    again = images.view_descriptors(network, 3, cache, list)
    assert network.calls == called
    assert torch.equal(again(rows, torch.Generator().manual_seed(3)), drawn[3])
    images.view_descriptors(network, 2, cache, list)
    assert network.calls > called
    called = network.calls
    other = FaceImages(np.zeros((5, 32, 32, 3), np.uint8), faces)
    other.view_descriptors(network, 2, cache, list)
    assert network.calls > called
