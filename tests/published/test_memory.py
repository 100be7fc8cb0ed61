"""Memory, CSV and latents, put together: what stays, what goes, and what the lookup finds in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cmpc2 import CheckpointError, getKNearestSamples
from cmpc2.memory import Memory, read_memory
from voicestyle.errors import BundleError
from voicestyle.latent_bank import LatentBank
from voicestyle.prototypes import Prototypes
from voicestyle.published import InvertedLatents, read_latents
from voicestyle.published.bank import make_bank


@pytest.fixture
def inverted():
    return InvertedLatents(np.arange(10, dtype=np.float32)[:, None] * np.ones(3, np.float32), tuple("abcdefghij"))


def memory(clusters, videos):
    return Memory(torch.eye(6), torch.tensor(clusters), list(videos))


def test_latents_are_put_in_the_order_of_the_csv(inverted):
    bank = make_bank(memory([0, 1, 2, 3, 4, 5], "jcagbi"), inverted)
    assert bank.latents[:, 0].tolist() == [9, 2, 0, 6, 1, 8]
    assert bank.assignments.tolist() == [0, 1, 2, 3, 4, 5]
    assert (bank.empty, bank.dropped, bank.videos_without_latent, bank.latents_without_video) == (0, 0, 0, 4)


def test_prototypes_that_lost_their_images_go_and_those_that_never_had_one_stay(inverted):
    # 1 has no video in the memory; the only video of 3 has no latent.
    bank = make_bank(memory([0, 2, 3, 4, 5, 4], "abXcdY"), inverted)
    assert bank.videos == tuple("abcd")
    np.testing.assert_array_equal(bank.centroids, np.eye(6)[[0, 1, 2, 4, 5]])
    assert bank.assignments.tolist() == [0, 2, 3, 4]
    assert (bank.empty, bank.dropped, bank.videos_without_latent, bank.latents_without_video) == (1, 1, 2, 6)


def test_latents_of_other_videos_are_refused(inverted):
    with pytest.raises(BundleError, match="got none of them: the CSV has 'X', the latents have 'a'"):
        make_bank(memory([0] * 6, "XYZUVW"), inverted)


@pytest.mark.parametrize("level", [6, 10, 14])
def test_the_bundles_lookup_picks_the_published_videos(stand_in, level):
    files = stand_in()
    bank = make_bank(read_memory(files.memory, files.csv, level), read_latents(files.latents))
    index, rows = Prototypes.from_centroids(bank.centroids), LatentBank(bank.latents, bank.assignments)
    for seed in range(5):
        voice = torch.randn(8, generator=torch.Generator().manual_seed(seed))
        found = rows.first_rows(index.nearest(voice.numpy(), 3), 8)
        expected = getKNearestSamples(voice, files.memory, files.csv, level, 3)
        assert [bank.videos[row] for row in found] == expected[:8]
        by_video = read_latents(files.latents)
        np.testing.assert_array_equal(rows.latents[found], by_video.latents[by_video.rows_of(expected[:8])])


def test_both_forms_of_latents_say_the_same(stand_in, tmp_path):
    files = stand_in()
    read = read_latents(files.latents)
    np.save(tmp_path / "w.npy", read.latents)
    (tmp_path / "w.txt").write_text("\n".join(read.videos) + "\n")
    other = read_latents(tmp_path / "w.npy")
    assert other.videos == read.videos
    np.testing.assert_array_equal(other.latents, read.latents)


VIDEOS = ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"latents": torch.ones(2, 512)}, r'must be \{"latents": tensor, "videos": list\}; its keys are latents'),
        ({"latents": torch.ones(2, 14, 512), "videos": VIDEOS}, r"numbers \[M, D\], got float32 \[2, 14, 512\]"),
        ({"latents": torch.ones(2, 512).long(), "videos": VIDEOS}, r"got int64 \[2, 512\]"),
        ({"latents": torch.ones(0, 512), "videos": []}, r"got float32 \[0, 512\]"),
        ({"latents": torch.full((2, 512), torch.inf), "videos": VIDEOS}, "must be finite"),
        ({"latents": torch.ones(3, 512), "videos": VIDEOS}, "every latent must have a video, got 3 and 2"),
        ({"latents": torch.ones(2, 512), "videos": ["a", "a"]}, "got several for 'a'"),
        ({"latents": torch.ones(2, 512), "videos": [1, 2]}, "paths as text, got int"),
        ([1], "must hold a dictionary; received list"),
    ],
)
def test_latents_of_another_form_are_named(tmp_path, content, message):
    torch.save(content, tmp_path / "latents.pt")
    with pytest.raises(CheckpointError, match=message):
        read_latents(tmp_path / "latents.pt")


def test_latents_that_cannot_be_read(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    (tmp_path / "objects.txt").write_text("a\n")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "alone.npy", np.ones((2, 512), np.float32))
    for name in ("objects.npy", "empty.npy"):
        with pytest.raises(CheckpointError, match=rf"{name} must be a \.npy file of numbers"):
            read_latents(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"alone\.txt"):
        read_latents(tmp_path / "alone.npy")
    with pytest.raises(CheckpointError, match=r"must be a \.pt or a \.npy file, got '\.csv'"):
        read_latents(tmp_path / "latents.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"assignments": torch.full((60,), 6)}, r"inst2cluster of 6 prototypes must hold integers in 0 … 5"),
        ({"assignments": torch.zeros(60)}, r"must hold integers in 0 … 5"),
        ({"centroids": torch.full((6, 8), torch.nan)}, "6 centroids must be finite"),
    ],
)
def test_memories_whose_numbers_make_no_sense(stand_in, change, message):
    files = stand_in(levels=(6,))
    content = torch.load(files.memory)
    content["inst2cluster"] = [change.get("assignments", content["inst2cluster"][0])]
    content["centroids"] = [change.get("centroids", content["centroids"][0])]
    torch.save(content, files.memory)
    with pytest.raises(CheckpointError, match=message):
        read_memory(files.memory, files.csv, 6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"VGGFace1 ID,video_id\nA,1\nB\n", "row 2 lacks one"),
        (b"VGGFace1 ID,video_id\nA,\xff\n", "must be a CSV in UTF-8"),
    ],
)
def test_tables_that_cannot_be_read(stand_in, content, message):
    files = stand_in()
    files.csv.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_memory(files.memory, files.csv, 6)


def test_a_memory_is_a_value(stand_in):
    files = stand_in()
    level = read_memory(files.memory, files.csv, 14)
    assert (level.centroids.shape, len(level.videos)) == ((14, 8), 60)
    assert replace(level, videos=[]).videos == []
