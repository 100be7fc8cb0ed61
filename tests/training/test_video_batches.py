"""Batches of videos: what they contain, and that their randomness depends on (seed, epoch, index) alone."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from voicestyle.training.augment_faces import FaceAugmentation
from voicestyle.training.augment_voices import VoiceAugmentation
from voicestyle.training.distributed import Ranks
from voicestyle.training.errors import TrainingDataError, TrainingError
from voicestyle.training.video_batches import DataOptions, Samples, VideoBatches
from voicestyle.training.videos import find_folders, read_videos

OPTIONS = DataOptions(batch=4, image_size=32, frames=40, workers=0)
SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture
def videos(videos_folder):
    folder = videos_folder(videos=10)
    return read_videos(folder / "training.csv", *find_folders(folder)).videos


def batches(videos, epoch=0, ranks=None, views=(None, None), seed=0, **changes):
    source = VideoBatches(Samples(videos, replace(OPTIONS, **changes), seed, *views), ranks)
    return list(source.batches(epoch))


def test_an_epoch_shows_every_video(videos):
    made = batches(videos)
    assert [tuple(batch.voices.shape) for batch in made] == [(4, 1, 64, 40)] * 3
    assert [tuple(batch.faces.shape) for batch in made] == [(4, 3, 32, 32)] * 3
    rows = torch.cat([batch.rows for batch in made])
    assert sorted(rows[:10].tolist()) == list(range(10))
    assert torch.equal(rows[10:], rows[:2])  # the last batch is filled up
    assert all(len(set(batch.rows.tolist())) == 4 for batch in made)


def same(one, two):
    return all(
        torch.equal(a.voices, b.voices) and torch.equal(a.faces, b.faces) and torch.equal(a.rows, b.rows)
        for a, b in zip(one, two, strict=True)
    )


def test_workers_change_nothing(videos):
    one = VideoBatches(Samples(videos, OPTIONS))
    two = VideoBatches(Samples(videos, replace(OPTIONS, workers=2)))
    for epoch in (0, 1):  # the workers persist, so they must learn of the second epoch
        assert same(list(one.batches(epoch)), list(two.batches(epoch)))


def test_an_item_depends_on_seed_epoch_and_index_only(videos):
    samples = Samples(videos, OPTIONS)
    again = samples[3, 7]
    assert all(torch.equal(a, b) for a, b in zip(samples[3, 7], again, strict=True))
    assert not torch.equal(samples[4, 7][0], again[0])
    assert not torch.equal(Samples(videos, OPTIONS, seed=1)[3, 7][0], again[0])
    assert not same(batches(videos, epoch=0), batches(videos, epoch=1))
    assert same(batches(videos, epoch=5), batches(videos, epoch=5))


def test_processes_share_a_batch(videos):
    whole = batches(videos)
    parts = [batches(videos, ranks=Ranks(rank, 2)) for rank in (0, 1)]
    for one, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([first.voices, second.voices]), one.voices)
        assert torch.equal(torch.cat([first.faces, second.faces]), one.faces)
        assert torch.equal(first.rows, one.rows)


def test_views_of_the_demo_training_fit_in(videos):
    views = (FaceAugmentation(), VoiceAugmentation())
    made = batches(videos, views=views)
    assert made[0].faces.shape == (4, 3, 32, 32)
    assert made[0].voices.shape == (4, 1, 64, 40)
    assert same(made, batches(videos, views=views, workers=1))
    assert not same(made, batches(videos))


def test_recordings_pass_the_front_end_of_the_service(videos):
    folder = videos[0].voices
    (folder / "00001.npy").unlink()
    shutil.copy(SAMPLES / "slt.wav", folder / "00002.wav")
    (folder / "00001.wav").write_bytes((SAMPLES / "slt.wav").read_bytes()[:44] + bytes(32_000))  # silence
    samples = Samples(videos, OPTIONS)
    for epoch in range(4):  # whichever recording is drawn first
        assert samples[epoch, 0][0].shape == (1, 64, 40)
    (folder / "00002.wav").unlink()
    assert "must contain a recording with speech; none of 1 has speech" in samples[0, 0].message


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_is_one_error_line(videos, workers):
    for path in videos[3].face_files():
        path.write_bytes(b"no image")
    with pytest.raises(TrainingDataError, match=r"video_003/0000\d+\.png must be an image") as caught:
        batches(videos, workers=workers)
    assert "\n" not in str(caught.value)


def test_an_unreadable_recording_is_one_error(videos):
    (videos[2].voices / "00001.npy").write_bytes(b"no array")
    assert "00001.npy" in Samples(videos, OPTIONS)[0, 2].message
    (videos[2].voices / "00001.npy").rename(videos[2].voices / "00001.wav")
    assert "libsndfile" in Samples(videos, OPTIONS)[0, 2].message


def test_files_that_disappear_are_one_error(videos):
    for path in videos[2].face_files():
        path.unlink()
    assert "must contain images; it has none" in Samples(videos, OPTIONS)[0, 2].message
    shutil.rmtree(videos[1].faces)
    assert "video_001" in Samples(videos, OPTIONS)[0, 1].message


def test_unsuitable_batches_are_rejected(videos):
    with pytest.raises(TrainingError, match="at most the number of videos 10, received 11"):
        batches(videos, batch=11)
    with pytest.raises(TrainingError, match="a multiple of the 3 processes, received 4"):
        batches(videos, ranks=Ranks(0, 3))
    with pytest.raises(TrainingError, match="batch must be at least 2"):
        DataOptions(batch=1)


def test_the_description_ignores_workers_only(videos):
    def described(seed=0, **changes):
        return VideoBatches(Samples(videos, replace(OPTIONS, **changes), seed)).description()

    assert described() == described(workers=2)
    assert described() != described(frames=41)
    assert described() != described(seed=1)
    fewer = VideoBatches(Samples(videos[:-1], OPTIONS)).description()
    assert described() != fewer
