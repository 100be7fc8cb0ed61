"""Frontal replacement: the best photograph wins, ties and batches change nothing, features are computed once."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from voicestyle.face_networks import ClipImageEncoder, FaceNetwork
from voicestyle.face_networks.clip import ClipConfig
from voicestyle.face_networks.network import to_tensor
from voicestyle.replacement import FeatureCache, Replacement, frames_by_video, photographs_by_person, replace_frames


class MeanColour(FaceNetwork):
    """Features are the mean colour, so that similarities follow from the pictures; counts the images it sees."""

    name, embedding_dim, needs_alignment = "mean colour", 3, False

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))
        self.batches = []

    def crop(self, images):
        return images

    def prepare(self, pixels):
        return to_tensor(pixels)

    def forward(self, images):
        self.batches.append(len(images))
        return ((images + 1).mean(dim=(2, 3)) + 1e-3) * self.gain


def read(path):
    try:
        return np.asarray(Image.open(path).convert("RGB"))
    except OSError:
        return None


def write(folder, colours):
    """A picture of one colour for each path."""
    for name, colour in colours.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(path)


RED, REDDISH, GREEN, BLUE = (255, 0, 0), (255, 60, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture
def folders(tmp_path):
    write(
        tmp_path / "frames",
        {
            "ann/1.6/one/000001.png": BLUE,
            "ann/1.6/one/000002.png": RED,
            "ann/1.6/two/000001.png": GREEN,
            "bob/three/000001.png": RED,
            ".part/four/000001.png": RED,
        },
    )
    write(tmp_path / "photos", {"ann/a.png": GREEN, "ann/b.png": REDDISH, "ann/set/c.png": REDDISH, "eve/d.png": RED})
    (tmp_path / "photos" / "ann" / "bad.png").write_bytes(b"no picture")
    return tmp_path


def replacements(folders, cache):
    videos, people = frames_by_video(folders / "frames"), photographs_by_person(folders / "photos")
    return {each.video: each for each in replace_frames(videos, people, cache)}


def test_the_layouts_of_frames_and_photographs_are_read(folders):
    videos, people = frames_by_video(folders / "frames"), photographs_by_person(folders / "photos")
    assert list(videos) == ["ann/1.6/one", "ann/1.6/two", "bob/three"]
    assert [path.name for path in videos["ann/1.6/one"]] == ["000001.png", "000002.png"]
    assert [path.name for path in people["ann"]] == ["a.png", "b.png", "bad.png", "c.png"]
    clips = frames_by_video(folders / "frames", levels=2)
    assert {video: len(frames) for video, frames in clips.items()} == {"ann/1.6": 3, "bob/three": 1}


def test_each_video_gets_the_most_similar_photograph_of_its_person(folders):
    found = replacements(folders, FeatureCache(folders / "work", MeanColour(), read, "PIL"))
    one, two, three = (found[video] for video in ("ann/1.6/one", "ann/1.6/two", "bob/three"))
    # b.png and c.png are equal: the first path counts. The best frame decides, not the mean of the frames.
    assert (one.photograph.name, one.frame.name) == ("b.png", "000002.png")
    assert one.similarity == pytest.approx(255 / np.hypot(255, 60), abs=1e-3)
    assert two.photograph.name == "a.png"
    assert three == Replacement("bob/three", reason="bob must have a usable photograph, got 0 files")


def test_a_video_without_usable_frame_has_a_reason(folders):
    (folders / "frames" / "ann" / "1.6" / "two" / "000001.png").write_bytes(b"cut")
    found = replacements(folders, FeatureCache(folders / "work", MeanColour(), read, "PIL"))
    assert found["ann/1.6/two"].reason == "a video must have a usable frame, got 1 files"
    assert found["ann/1.6/one"].photograph is not None


def test_features_are_computed_once_and_again_for_a_changed_file(folders):
    network = MeanColour()
    first = replacements(folders, FeatureCache(folders / "work", network, read, "PIL", batch=4))
    assert network.batches == [4, 4]  # three frames and three photographs, the last batch filled up
    network.batches.clear()
    assert replacements(folders, FeatureCache(folders / "work", network, read, "PIL", batch=4)) == first
    assert network.batches == []
    write(folders / "photos", {"ann/a.png": (9, 9, 200)})
    again = replacements(folders, FeatureCache(folders / "work", network, read, "PIL", batch=4))
    assert network.batches == [4]
    assert again["ann/1.6/two"].photograph.name != "a.png"


def test_another_network_or_reader_does_not_use_the_features(folders):
    replacements(folders, FeatureCache(folders / "work", MeanColour(), read, "PIL"))
    other = MeanColour()
    other.gain.data[0] = 0.5
    for cache in (
        FeatureCache(folders / "work", other, read, "PIL"),
        FeatureCache(folders / "work", MeanColour(), read, "another"),
    ):
        replacements(folders, cache)
        assert cache.network.batches


def test_a_damaged_cache_is_computed_again(folders):
    network = MeanColour()
    first = replacements(folders, FeatureCache(folders / "work", network, read, "PIL"))
    (stored,) = (folders / "work").rglob("*.npz")
    stored.write_bytes(stored.read_bytes()[:-40])
    assert replacements(folders, FeatureCache(folders / "work", network, read, "PIL")) == first


def test_an_interruption_keeps_finished_people(folders):
    write(folders / "photos", {"bob/e.png": RED})

    def interrupted(path):
        if "bob" in path.parts:
            raise KeyboardInterrupt
        return read(path)

    network = MeanColour()
    with pytest.raises(KeyboardInterrupt):
        replacements(folders, FeatureCache(folders / "work", network, interrupted, "PIL"))
    network.batches.clear()
    found = replacements(folders, FeatureCache(folders / "work", network, read, "PIL"))
    assert network.batches == [8]  # bob's frame and photograph
    assert found["bob/three"].photograph.name == "e.png"


def test_features_do_not_depend_on_which_files_are_new(tmp_path):
    """With CLIP's architecture, whose products of matrices round differently in batches of different sizes."""
    torch.manual_seed(0)
    network = ClipImageEncoder(ClipConfig(image_size=64, patch=16, width=128, layers=2, embedding_dim=32))
    weights = {f"visual.{name}": 0.1 * torch.randn(value.shape) for name, value in network.state_dict().items()}
    network = ClipImageEncoder.from_state_dict(weights, "random")
    pictures = np.random.default_rng(0).integers(0, 256, (11, 64, 64, 3), np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(11)]
    for path, pixels in zip(paths, pictures, strict=True):
        Image.fromarray(pixels).save(path)
    at_once = FeatureCache(tmp_path / "a", network, read, "PIL").features("x/../y", paths)
    in_parts = FeatureCache(tmp_path / "b", network, read, "PIL")
    for stop in (1, 6, 11):
        parts = in_parts.features("x/../y", paths[:stop])
    assert all(np.array_equal(one, other) for one, other in zip(at_once, parts, strict=True))
    assert len(list((tmp_path / "b").rglob("*.npz"))) == 1


def test_the_batch_must_not_be_empty(tmp_path):
    with pytest.raises(ValueError, match="a batch must have at least 1 image, got 0"):
        FeatureCache(tmp_path, MeanColour(), read, "PIL", batch=0)
    assert FeatureCache(tmp_path, MeanColour(), read, "PIL").features("ann", [tmp_path / "gone.png"]) == [None]
