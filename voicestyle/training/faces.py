"""Generated faces in a cache folder: drawn once, in the order of their seeds, resumed where it stopped."""

import importlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from voicestyle.generators import MobileStyleGAN, face_z
from voicestyle.training.errors import TrainingDataError

Progress = Callable[[range], Iterable[int]]
"""Wraps the steps that are left, as `tqdm` does."""

ImageOf = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""z [N, 512] to images [N, 3, size, size], about [-1, 1]."""

CAPACITY = 16_384  # the file is sparse: room costs nothing
_BATCH = 4
_SAVE_EVERY = 40


class FaceCache:
    """images uint8 [CAPACITY, size, size, 3] in a memory-mapped .npy, the first `done` of them drawn.

    Face i has the seed i. `made` names what draws them (the generator's weights); a folder drawn by something
    else is refused with a TrainingDataError, since the encoders must see what the bundle's generator makes.
    """

    def __init__(self, folder: Path, image_size: int, made: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._state, self._made = folder / "faces.json", made
        path = folder / f"faces_{image_size}.npy"
        self.done = 0
        if path.is_file() and self._state.is_file():
            state = json.loads(self._state.read_text())
            if state["made"] != made:
                raise TrainingDataError(
                    f"the faces in {folder} must come from {made}; they come from {state['made']}: "
                    "name another work folder or delete this one"
                )
            self.done = int(state["done"])
        self.images: np.memmap[Any, np.dtype[np.uint8]] = np.lib.format.open_memmap(
            path,
            mode="r+" if self.done else "w+",
            dtype=np.uint8,
            shape=None if self.done else (CAPACITY, image_size, image_size, 3),
        )

    def draw(self, image_of: ImageOf, draws: int, progress: Progress) -> None:
        """Draw the faces that are missing of the first `draws`; may be interrupted at any time."""
        if draws > CAPACITY:
            raise TrainingDataError(f"at most {CAPACITY} faces fit the cache, received {draws}")
        for first in progress(range(self.done, draws, _BATCH)):
            seeds = range(first, min(first + _BATCH, CAPACITY))
            images = image_of(face_z(seeds).numpy())
            pixels = np.rint((images.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
            self.images[first : seeds.stop] = pixels.transpose(0, 2, 3, 1)
            self.done = seeds.stop
            if self.done % _SAVE_EVERY == 0:
                self._save()
        self._save()

    def _save(self) -> None:
        self.images.flush()
        self._state.write_text(json.dumps({"made": self._made, "done": self.done}))


def pooled(images: NDArray[np.uint8], rows: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """images[rows] average-pooled to size × size: uint8 [N, H, W, 3] to [n, size, size, 3], H a multiple of size."""
    factor = images.shape[1] // size
    small = np.empty((len(rows), size, size, 3), np.uint8)
    for i, row in enumerate(rows.tolist()):
        blocks = images[row].reshape(size, factor, size, factor, 3)
        small[i] = np.rint(blocks.mean((1, 3)))
    return small


class _ImageOfZ(nn.Module):
    """z [N, 512] to the image that the optimisation sees, as one graph."""

    def __init__(self, generator: MobileStyleGAN) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(self.generator.map(z), [])


def compiled(generator: MobileStyleGAN) -> ImageOf:
    """The generator's 256-pixel images by OpenVINO, which draws four times as many a second as torch on a CPU and
    agrees to 1e-4; takes batches of 4. Raises ImportError without the `train` extra.
    """
    openvino = importlib.import_module("openvino")
    example = face_z(range(_BATCH))
    with torch.inference_mode():
        traced = torch.jit.trace(_ImageOfZ(generator), example, check_trace=False)
    model = openvino.convert_model(traced, example_input=example)
    network: Any = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda z: network([z])[0]
