"""Image files as pixels, and as the input of face networks."""

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

ALIGNED = 256  # width and height in pixels of the input of face networks


def read_pixels(image: bytes, size: int | None = None) -> NDArray[np.uint8]:
    """The pixels [H, W, 3] of an image file, RGB, resized to `size` by `size` where that is given and differs."""
    with Image.open(io.BytesIO(image)) as opened:
        colours = opened.convert("RGB")
        if size and colours.size != (size, size):
            colours = colours.resize((size, size), Image.Resampling.LANCZOS)
        return np.asarray(colours)


def to_input(image: bytes) -> Tensor:
    """An image file as the input [3, 256, 256] of a face network, float32 in [-1, 1]."""
    pixels = torch.from_numpy(read_pixels(image, ALIGNED).copy())
    return pixels.permute(2, 0, 1).float() / 127.5 - 1
