"""Fixtures in the format of the published files, with random weights and small sizes by default."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.networks import stylegan2_weights as trained_like
from cmpc2 import CMPC, ResNetConfig
from voicestyle.generators.stylegan2 import StyleGAN2Config, blur_kernel
from voicestyle.generators.stylegan2_checkpoint import kernel_shapes, noise_shapes
from voicestyle.published import PublishedFiles

SMALL_ENCODER = ResNetConfig(widths=(4, 4, 8, 8), depths=(1, 1, 1, 1), embedding_dim=8)
NARROW = StyleGAN2Config(size=64, max_width=12)

State = dict[str, torch.Tensor]


def stylegan2_weights(config: StyleGAN2Config, *, noise: bool = True, kernels: bool = False, seed: int = 0) -> State:
    """A state_dict with the published names, and optionally the buffers that only some files have."""
    source = torch.Generator().manual_seed(seed + 1)
    weights = trained_like(config, seed)
    if noise:
        weights |= {key: torch.randn(shape, generator=source) for key, shape in noise_shapes(config).items()}
    return weights | ({key: blur_kernel() for key in kernel_shapes(config)} if kernels else {})


def cmpc_weights(config: ResNetConfig) -> State:
    """A state_dict in which all weights and statistics differ from their initial values."""
    torch.manual_seed(1)
    weights = CMPC(config, config).state_dict()
    for key, value in weights.items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point() and value.dim() == 1:
            value.add_(0.1 * torch.randn_like(value))
    return weights


@dataclass(frozen=True)
class FileSizes:
    """Sizes of the files: both networks, levels and videos of the memory, and the rows of videos with latents."""

    encoder: ResNetConfig = SMALL_ENCODER
    generator: StyleGAN2Config = NARROW
    levels: tuple[int, ...] = (6, 10, 14)
    videos: int = 60
    held: tuple[int, ...] | None = None

    def memory(self) -> dict[str, object]:
        source = torch.Generator().manual_seed(2)
        return {
            "centroids": [3 * torch.randn(k, self.encoder.embedding_dim, generator=source) for k in self.levels],
            "inst2cluster": [torch.arange(self.videos) % k for k in self.levels],
            "epoch": 3,
        }

    def names(self) -> list[tuple[str, str]]:
        return [(f"Person_{row // 6:03}", f"video_{row:05}") for row in range(self.videos)]

    def latents(self) -> dict[str, object]:
        """Latents in another order than the CSV, with one video that is not in the CSV."""
        held = self.held if self.held is not None else tuple(range(self.videos))
        rows = np.random.default_rng(3).permutation(held)
        names = self.names()
        videos = [f"{names[row][0]}/1.6/{names[row][1]}" for row in rows] + ["Nobody/1.6/video_99999"]
        values = torch.randn(self.videos + 1, 512, generator=torch.Generator().manual_seed(4))
        return {"latents": values[torch.tensor([*rows, self.videos])], "videos": videos}

    def write(self, folder: Path) -> PublishedFiles:
        torch.save({"model": cmpc_weights(self.encoder), "epoch": 1}, folder / "cmpc.pth.tar")
        torch.save(self.memory(), folder / "frame_memory.pth.tar")
        with (folder / "training.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["VGGFace1 ID", "split", "video_id"])
            table.writerows([name, 1, video] for name, video in self.names())
        torch.save({"g_ema": stylegan2_weights(self.generator), "latent_avg": torch.zeros(512)}, folder / "g.pt")
        torch.save(self.latents(), folder / "latents.pt")
        names = ("cmpc.pth.tar", "frame_memory.pth.tar", "training.csv", "g.pt", "latents.pt")
        return PublishedFiles(*(folder / name for name in names))


@pytest.fixture
def published_files(tmp_path: Path) -> Callable[..., PublishedFiles]:
    """`published_files(**changes)`: write files with `FileSizes(**changes)` and return their paths."""

    def write(**changes: object) -> PublishedFiles:
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        return FileSizes(**changes).write(folder)

    return write


@pytest.fixture(scope="session")
def small_encoder() -> ResNetConfig:
    return SMALL_ENCODER


@pytest.fixture(scope="session")
def narrow() -> StyleGAN2Config:
    return NARROW


@pytest.fixture(scope="session")
def weights_of() -> Callable[..., State]:
    return stylegan2_weights
