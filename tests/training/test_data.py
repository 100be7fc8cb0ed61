"""Training data: speakers, faces, labels and their assignment."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from voicestyle.generators import face_z
from voicestyle.training.errors import TrainingDataError
from voicestyle.training.faces import FaceCache, pooled
from voicestyle.training.labels import FEMALE, MALE, UNKNOWN, FaceLabels, label_faces
from voicestyle.training.options import FaceOptions
from voicestyle.training.pairing import match_alike, pair_by_sex, without_direction
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


def test_pooling_averages_blocks():
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    small = pooled(images, np.array([1]), 2)
    assert small.shape == (1, 2, 2, 3)
    assert small[0, 0, 0, 0] == np.rint(images[1, :2, :2, 0].mean())


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


def test_assigned_faces_have_the_same_sex_and_are_similar():
    generator = torch.Generator().manual_seed(0)
    face_sex = torch.arange(40) % 2
    looks = torch.randn(40, 6, generator=generator)
    speaker_sex = torch.tensor([0, 1, 1, 0, 1])
    rows = pair_by_sex(speaker_sex, face_sex, looks, 4, seed=0)
    assert rows.shape == (5, 4)
    assert torch.equal(face_sex[rows], speaker_sex[:, None].expand(5, 4))
    unit = torch.nn.functional.normalize(looks, dim=1)
    together = torch.stack([(unit[row] @ unit[row].T).mean() for row in rows]).mean()
    assert together > (unit[face_sex == 0] @ unit[face_sex == 0].T).mean() + 0.1


def test_the_direction_that_predicts_a_value_is_removed():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(500, 8, generator=generator)
    blind = without_direction(points, points[:, 2] * 30 + 100)
    assert abs(float(torch.corrcoef(torch.stack([blind[:, 2], points[:, 2]]))[0, 1])) < 0.2
    assert float(torch.corrcoef(torch.stack([blind[:, 5], points[:, 5]]))[0, 1]) > 0.9


def test_similar_voices_get_similar_identities():
    generator = torch.Generator().manual_seed(0)
    sex = torch.arange(60) % 2
    place = torch.rand(60, 2, generator=generator) * torch.tensor([4.0, 1.0])
    hidden = torch.linalg.qr(torch.randn(7, 7, generator=generator))[0][:2]
    shuffled = torch.cat([torch.randperm(30, generator=generator) * 2 + s for s in (0, 1)])[
        torch.stack([torch.arange(30), torch.arange(30, 60)], 1).flatten()
    ]
    assigned = match_alike(place @ hidden, place[shuffled], sex)
    assert sorted(assigned.tolist()) == list(range(60))
    assert torch.equal(sex[assigned], sex)
    # Either component may be mirrored, so compare distances, not coordinates.
    mine, theirs = place, place[shuffled][assigned]
    for each in (0, 1):
        apart = torch.stack([torch.cdist(p[sex == each], p[sex == each]).flatten() for p in (mine, theirs)])
        assert float(torch.corrcoef(apart)[0, 1]) > 0.6
