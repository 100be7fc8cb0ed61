"""Folders of tiny training videos, in the published layouts."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cmpc2 import ResNetConfig

TINY = ResNetConfig(widths=(4, 8, 8, 16), depths=(1, 1, 1, 1), embedding_dim=16)
PEOPLE = 6


@pytest.fixture(autouse=True)
def _one_thread():
    """Several threads would slow such small networks down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> ResNetConfig:
    return TINY


def write_videos(folder: Path, videos: int = 12, frames: int = 60, images: int = 2) -> Path:
    """Write `videos` of 6 people, whose voices beat and whose faces are coloured by person. Returns the CSV."""
    rng = np.random.default_rng(0)
    table = folder / "training.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["VGGFace1 ID", "split", "VoxCeleb1 ID", "video_id"])
        for number in range(videos):
            person = number % PEOPLE
            name, speaker, video = f"Person_{person}", f"id{person:05}", f"video_{number:03}"
            rows.writerow([name, 1, speaker, video])
            voice = folder / "voices" / speaker / video
            face = folder / "faces" / name / "1.6" / video
            voice.mkdir(parents=True)
            face.mkdir(parents=True)
            beat = 1.5 * np.sin(2 * np.pi * np.arange(frames)[:, None] / (4 + 5 * person))
            np.save(voice / "00001.npy", (beat + 0.3 * rng.standard_normal((frames, 64))).astype(np.float32))
            for image in range(images):
                colour = 255 * np.array([person & 1, person >> 1 & 1, person >> 2])
                pixels = (colour * 0.7 + 60 * rng.random((40, 40, 3))).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(face / f"{image:07}.png")
    return table


@pytest.fixture
def videos_folder(tmp_path: Path) -> Callable[..., Path]:
    """`videos_folder(**sizes)`: write videos with `write_videos` and return their folder, `data`."""

    def write(**sizes: int) -> Path:
        folder = tmp_path / "data"
        folder.mkdir()
        write_videos(folder, **sizes)
        return folder

    return write
