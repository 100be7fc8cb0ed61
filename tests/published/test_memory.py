"""Combination of memory, CSV and latents into a latent bank with prototypes."""

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


def test_latents_are_sorted_by_the_order_of_the_csv(inverted):
    bank = make_bank(memory([0, 1, 2, 3, 4, 5], "jcagbi"), inverted)
    assert bank.latents[:, 0].tolist() == [9, 2, 0, 6, 1, 8]
    assert bank.assignments.tolist() == [0, 1, 2, 3, 4, 5]
    assert (bank.empty, bank.dropped, bank.videos_without_latent, bank.latents_without_video) == (0, 0, 0, 4)


def test_prototypes_without_latents_go_but_empty_ones_stay(inverted):
    # Prototype 1 has no video in the memory; the only video of prototype 3 has no latent.
    bank = make_bank(memory([0, 2, 3, 4, 5, 4], "abXcdY"), inverted)
    assert bank.videos == tuple("abcd")
    np.testing.assert_array_equal(bank.centroids, np.eye(6)[[0, 1, 2, 4, 5]])
    assert bank.assignments.tolist() == [0, 2, 3, 4]
    assert (bank.empty, bank.dropped, bank.videos_without_latent, bank.latents_without_video) == (1, 1, 2, 6)


def test_latents_of_other_videos_are_rejected(inverted):
    with pytest.raises(
        BundleError, match="got none of them: the first video of the CSV is 'X', that of the latents 'a'"
    ):
        make_bank(memory([0] * 6, "XYZUVW"), inverted)


@pytest.mark.parametrize("level", [6, 10, 14])
def test_the_lookup_finds_the_published_videos(published_files, level):
    files = published_files()
    bank = make_bank(read_memory(files.memory, files.csv, level), read_latents(files.latents))
    index, rows = Prototypes.from_centroids(bank.centroids), LatentBank(bank.latents, bank.assignments)
    for seed in range(5):
        voice = torch.randn(8, generator=torch.Generator().manual_seed(seed))
        found = rows.first_rows(index.nearest(voice.numpy(), 3), 8)
        expected = getKNearestSamples(voice, files.memory, files.csv, level, 3)
        assert [bank.videos[row] for row in found] == expected[:8]
        by_video = read_latents(files.latents)
        np.testing.assert_array_equal(rows.latents[found], by_video.latents[by_video.rows_of(expected[:8])])


def test_both_formats_of_latents_are_equal(published_files, tmp_path):
    files = published_files()
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
        ({"latents": torch.ones(2), "videos": VIDEOS}, r"numbers \[M, D\] or \[M, L, D\], got float32 \[2\]"),
        ({"latents": torch.ones(2, 512).long(), "videos": VIDEOS}, r"got int64 \[2, 512\]"),
        ({"latents": torch.ones(0, 512), "videos": []}, r"got float32 \[0, 512\]"),
        ({"latents": torch.full((2, 512), torch.inf), "videos": VIDEOS}, "must be finite"),
        ({"latents": torch.ones(3, 512), "videos": VIDEOS}, "every latent must have a video, got 3 and 2"),
        ({"latents": torch.ones(2, 512), "videos": ["a", "a"]}, "got 2 for 'a'"),
        ({"latents": torch.ones(2, 512), "videos": [1, 2]}, "videos must be strings, got int"),
        ([1], "must contain a dictionary; received list"),
    ],
)
def test_latents_of_another_format_are_rejected(tmp_path, content, message):
    torch.save(content, tmp_path / "latents.pt")
    with pytest.raises(CheckpointError, match=message):
        read_latents(tmp_path / "latents.pt")


def test_unreadable_latents_are_rejected(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    (tmp_path / "objects.txt").write_text("a\n")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "alone.npy", np.ones((2, 512), np.float32))
    with (tmp_path / "archive.npy").open("wb") as file:
        np.savez(file, latents=np.ones((2, 512), np.float32))
    for name in ("objects.npy", "empty.npy", "archive.npy"):
        with pytest.raises(CheckpointError, match=rf"{name} must be a \.npy file of numbers"):
            read_latents(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"alone\.txt"):
        read_latents(tmp_path / "alone.npy")
    with pytest.raises(CheckpointError, match=r"must be a \.pt or a \.npy file, got '\.csv'"):
        read_latents(tmp_path / "latents.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"assignments": torch.full((60,), 6)}, r"inst2cluster of 6 prototypes must be integers in 0 … 5"),
        ({"assignments": torch.zeros(60)}, r"must be integers in 0 … 5"),
        ({"centroids": torch.full((6, 8), torch.nan)}, "6 centroids must be finite"),
    ],
)
def test_memories_with_invalid_numbers_are_rejected(published_files, change, message):
    files = published_files(levels=(6,))
    content = torch.load(files.memory)
    content["inst2cluster"] = [change.get("assignments", content["inst2cluster"][0])]
    content["centroids"] = [change.get("centroids", content["centroids"][0])]
    torch.save(content, files.memory)
    with pytest.raises(CheckpointError, match=message):
        read_memory(files.memory, files.csv, 6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"VGGFace1 ID,video_id\nA,1\nB\n", "row 2 does not"),
        (b"VGGFace1 ID,video_id\nA,\xff\n", "must be a CSV in UTF-8"),
    ],
)
def test_invalid_csv_files_are_rejected(published_files, content, message):
    files = published_files()
    files.csv.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_memory(files.memory, files.csv, 6)


def test_a_memory_can_be_replaced(published_files):
    files = published_files()
    level = read_memory(files.memory, files.csv, 14)
    assert (level.centroids.shape, len(level.videos)) == ((14, 8), 60)
    assert replace(level, videos=[]).videos == []
