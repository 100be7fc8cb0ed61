"""A cache of generated faces, drawn in the order of their seeds. Drawing can be interrupted and resumed."""

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
"""Wraps the range of remaining steps, as `tqdm` does."""

StageProgress = Callable[[str], Progress]
"""Returns the progress of the stage of a title, e.g. "drawing faces"."""

ImageOf = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""z [N, 512] to images [N, 3, size, size], nominally in [-1, 1]."""

CAPACITY = 16_384  # unused capacity takes no disk space: the file is sparse
_BATCH = 4
_SAVE_EVERY = 40


class FaceCache:
    """images: uint8 [CAPACITY, size, size, 3] in a memory-mapped .npy, of which the first `done` are drawn.

    Face i has the seed i. `source` identifies the generator's weights. Raises TrainingDataError for a folder of another
    source, because the encoders must be trained on images of the bundle's generator.
    """

    def __init__(self, folder: Path, image_size: int, source: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._state, self._source = folder / "faces.json", source
        path = folder / f"faces_{image_size}.npy"
        self.done = 0
        if path.is_file() and self._state.is_file():
            state = json.loads(self._state.read_text())
            if state["source"] != source:
                raise TrainingDataError(
                    f"the faces in {folder} must come from {source}, got faces from {state['source']}: "
                    "use another work folder or delete this one"
                )
            self.done = int(state["done"])
        self.images: np.memmap[Any, np.dtype[np.uint8]] = np.lib.format.open_memmap(
            path,
            mode="r+" if self.done else "w+",
            dtype=np.uint8,
            shape=None if self.done else (CAPACITY, image_size, image_size, 3),
        )

    def draw(self, image_of: ImageOf, draws: int, progress: Progress) -> None:
        """Draw the first `draws` faces, except those in the cache. Can be interrupted at any time."""
        if draws > CAPACITY:
            raise TrainingDataError(f"the cache can store at most {CAPACITY} faces, received {draws}")
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
        self._state.write_text(json.dumps({"source": self._source, "done": self.done}))


class _ImageOfZ(nn.Module):
    """z [N, 512] to the image of the optimisation, as one graph."""

    def __init__(self, generator: MobileStyleGAN) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(self.generator.map(z), [])


def compiled(generator: MobileStyleGAN) -> ImageOf:
    """Compile the generator's 256-pixel images with OpenVINO: on a CPU four times as fast as torch, equal to 1e-4.

    The function takes batches of 4. Raises ImportError without the `train` extra.
    """
    openvino = importlib.import_module("openvino")
    example = face_z(range(_BATCH))
    with torch.inference_mode():
        traced = torch.jit.trace(_ImageOfZ(generator), example, check_trace=False)
    model = openvino.convert_model(traced, example_input=example)
    network: Any = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda z: network([z])[0]
