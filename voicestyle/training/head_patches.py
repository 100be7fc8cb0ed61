"""Training data of the 256-pixel head: patches of generated faces, stored in a folder."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from voicestyle.generators import MobileStyleGAN, face_z
from voicestyle.training.faces import Progress

TRAINING_SEED = 3_000_000_000
SAVE_EVERY = 16  # faces


@dataclass(frozen=True)
class PatchOptions:
    """Options of the patches; `size` is in pixels of the features, which have half the resolution of the image."""

    faces: int = 512
    per_face: int = 10
    size: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.faces, self.per_face) < 1:
            raise ValueError(f"faces and per_face must be positive, received {self.faces} and {self.per_face}")
        if not 6 <= self.size <= 128:
            raise ValueError(f"size must be in 6 … 128, received {self.size}")


@dataclass(frozen=True)
class Patches:
    """K patches of each of F faces. features: [F, K, C, p, p], images: [F, K, 3, 2·p, 2·p], both float16.
    w: float32 [F, 512]."""

    features: NDArray[np.float16]
    images: NDArray[np.float16]
    w: Tensor


def training_latent(generator: MobileStyleGAN, face: int) -> Tensor:
    """w [1, 512] of a training face. Every fourth is a mean of four latents: the optimisation starts from means."""
    first = TRAINING_SEED + 4 * face
    seeds = range(first, first + 4) if face % 4 == 3 else [first]
    return generator.map(face_z(seeds)).mean(dim=0, keepdim=True)


@torch.no_grad()
def draw_patches(generator: MobileStyleGAN, folder: Path, options: PatchOptions, progress: Progress) -> Patches:
    """Draw the patches that are missing in `folder` and open all of them. Resumes an interrupted run.

    Raises ValueError if the folder contains patches of other options.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / "drawn.json"
    drawn, found = 0, repr(options)
    if state_file.exists():
        state = json.loads(state_file.read_text())
        drawn, found = state["drawn"], state["options"]
    if found != repr(options):
        raise ValueError(f"{folder.name} must contain patches of {options!r}, received {found}: use another folder")
    shape, size, channels = (options.faces, options.per_face), options.size, generator.head.direct.in_channels
    features = _memory_map(folder / "features.npy", (*shape, channels, size, size), new=drawn == 0)
    images = _memory_map(folder / "images.npy", (*shape, 3, 2 * size, 2 * size), new=drawn == 0)
    for face in progress(range(drawn, options.faces)):
        w = training_latent(generator, face)
        x = generator.features(w)
        whole = generator.finish(x, w)
        image = functional.avg_pool2d(whole, whole.shape[-1] // (2 * x.shape[-1]))
        corners = np.random.default_rng((options.seed, face)).integers(0, x.shape[-1] - size + 1, (options.per_face, 2))
        for patch, (top, left) in enumerate(corners):
            features[face, patch] = _window(x, top, left, size)
            images[face, patch] = _window(image, 2 * top, 2 * left, 2 * size)
        if (face + 1) % SAVE_EVERY == 0 or face + 1 == options.faces:
            features.flush()
            images.flush()
            state_file.write_text(json.dumps({"options": repr(options), "drawn": face + 1}))
    w = torch.cat([training_latent(generator, face) for face in range(options.faces)])
    return Patches(features, images, w)


def _window(x: Tensor, top: int, left: int, size: int) -> NDArray[np.float32]:
    return x[0, :, top : top + size, left : left + size].numpy()


def _memory_map(path: Path, shape: tuple[int, ...], *, new: bool) -> np.memmap[tuple[int, ...], np.dtype[np.float16]]:
    if new:
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    return np.lib.format.open_memmap(path, mode="r+")
