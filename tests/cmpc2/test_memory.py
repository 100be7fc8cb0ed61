from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from cmpc2 import CheckpointError, getKNearestSamples

LEVELS = (5, 10, 15)
DIM, VIDEOS = 6, 40


@pytest.fixture
def memory() -> dict[str, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return {
        "centroids": [torch.randn(size, DIM, generator=generator) * 3 for size in LEVELS],
        "inst2cluster": [torch.randint(size, (VIDEOS,), generator=generator) for size in LEVELS],
    }


@pytest.fixture
def files(tmp_path, memory):
    """`files(content, rows, columns)`: write a memory and a CSV and return their paths."""

    def write(
        content: object = memory, rows: int = VIDEOS, columns: tuple[str, ...] = ("VGGFace1 ID", "split", "video_id")
    ):
        torch.save(content, tmp_path / "memory.pth.tar")
        with (tmp_path / "training.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(columns)
            table.writerows([f'Ana "Ñ", {row // 4}', 1, f"v_{row:03}"] for row in range(rows))
        return tmp_path / "memory.pth.tar", tmp_path / "training.csv"

    return write


def plain_lookup(voice: torch.Tensor, memory: dict[str, list[torch.Tensor]], level: int, k: int) -> list[str]:
    """The reference: a plain loop over centroids."""
    unit = voice.flatten().numpy().astype(float)
    unit /= np.linalg.norm(unit)
    centroids = memory["centroids"][level].numpy().astype(float)
    distances = [np.sum((unit - c / np.linalg.norm(c)) ** 2) for c in centroids]
    nearest = set(np.argsort(distances)[:k].tolist())
    rows = [row for row, cluster in enumerate(memory["inst2cluster"][level].tolist()) if cluster in nearest]
    return [f'Ana "Ñ", {row // 4}/1.6/v_{row:03}' for row in rows]


@pytest.mark.parametrize("level", range(3))
@pytest.mark.parametrize("k", [1, 3, 5])
def test_equals_the_reference(files, memory, level, k):
    memory_path, table_path = files()
    for seed in range(5):
        voice = torch.randn(1, DIM, generator=torch.Generator().manual_seed(seed))
        expected = plain_lookup(voice, memory, level, k)
        assert getKNearestSamples(voice, memory_path, table_path, LEVELS[level], k) == expected
        # The result does not depend on the norm of the embedding, its dtype, batch axis or gradient.
        other = (voice[0].double() * 100).requires_grad_()
        assert getKNearestSamples(other, str(memory_path), str(table_path), LEVELS[level], K=k) == expected


def test_all_prototypes_give_all_videos_in_row_order(files):
    paths = getKNearestSamples(torch.ones(DIM), *files(), cluster=5, K=5)
    assert [path.rsplit("_", 1)[1] for path in paths] == [f"{row:03}" for row in range(VIDEOS)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cluster": 1000}, r"cluster must be one of \[5, 10, 15\].*received 1000"),
        ({"cluster": 5, "K": 6}, r"K must be in 1 … 5; received 6"),
        ({"cluster": 5, "K": 0}, r"K must be in 1 … 5; received 0"),
    ],
)
def test_invalid_cluster_and_k_are_rejected(files, options, message):
    with pytest.raises(ValueError, match=message):
        getKNearestSamples(torch.ones(DIM), *files(), **options)


@pytest.mark.parametrize("shape", [(DIM + 1,), (2, DIM), (1, 1, DIM)])
def test_embeddings_of_another_shape_are_rejected(files, shape):
    with pytest.raises(ValueError, match=r"audio_feature must be \[6\] or \[1, 6\]; received"):
        getKNearestSamples(torch.ones(shape), *files(), cluster=5)


def test_memories_of_another_format_are_rejected(files, memory):
    for broken in (
        {"centroids": memory["centroids"]},
        {"centroids": memory["centroids"], "inst2cluster": memory["inst2cluster"][:2]},
        {"centroids": [1, 2, 3], "inst2cluster": memory["inst2cluster"]},
        {"centroids": memory["inst2cluster"], "inst2cluster": memory["inst2cluster"]},
        [1, 2],
    ):
        with pytest.raises(CheckpointError, match=r"memory\.pth\.tar"):
            getKNearestSamples(torch.ones(DIM), *files(broken), cluster=5)


def test_csv_files_of_another_format_are_rejected(files):
    with pytest.raises(CheckpointError, match=r"one row for each of the 40 videos .*; received 39 rows"):
        getKNearestSamples(torch.ones(DIM), *files(rows=39), cluster=5)
    with pytest.raises(CheckpointError, match=r"training\.csv must have the columns .* missing \['video_id'\]"):
        getKNearestSamples(torch.ones(DIM), *files(columns=("VGGFace1 ID", "a", "b")), cluster=5)
