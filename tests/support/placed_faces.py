"""Generated faces, whose FFHQ frame is known, placed into larger pictures."""

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from voicestyle.generators import WHEEL_NAME, MobileStyleGAN, from_wheel, map_seeds
from voicestyle.images import to_pixels
from voicestyle.photographs.alignment import Square

WHEEL = Path(__file__).parents[2] / ".cache" / "wheels" / WHEEL_NAME
FACE_SIZE = 1024
PICTURE_SIZE = (1400, 1100)

Pixels = NDArray[np.uint8]


def load_generator(wheel: Path = WHEEL) -> MobileStyleGAN:
    return from_wheel(wheel)


def generated_face(generator: MobileStyleGAN, seed: int) -> Pixels:
    """A face uint8 [1024, 1024, 3], aligned as the generator learned it from FFHQ."""
    with torch.inference_mode():
        image = generator.render(map_seeds(generator, np.array([seed], np.uint32)), [], FACE_SIZE)
    return to_pixels(image[0])


def random_square(seed: int) -> Square:
    """A frame of 350 to 1260 pixels, turned by up to 20°, inside a picture of `PICTURE_SIZE` as far as it fits."""
    random = np.random.default_rng(seed)
    width, height = PICTURE_SIZE
    half = FACE_SIZE / 2 * random.uniform(0.34, 0.9) * np.exp(1j * np.deg2rad(random.uniform(-20, 20)))
    centre = [size / 2 + random.uniform(-1, 1) * max(0, size / 2 - 1.2 * abs(half)) for size in (width, height)]
    return Square(complex(*centre), complex(half))


def place(face: Pixels, square: Square, size: tuple[int, int] = PICTURE_SIZE) -> Pixels:
    """A picture uint8 [height, width, 3] with `face` in `square` and blurred colours of its borders around it."""
    count = face.shape[0]
    turn = square.half * 2 / count
    shift = square.centre - turn * complex(count - 1, count - 1) / 2
    to_picture = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    # A low-pass filter against aliasing: the interpolation does not average where it shrinks.
    smooth = cv2.GaussianBlur(face, (0, 0), 0.35 / abs(turn)) if abs(turn) < 0.7 else face
    warped = cv2.warpAffine(smooth, to_picture, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones(face.shape[:2], np.float32), to_picture, size)[..., None]
    around = cv2.blur(cv2.blur(warped, (81, 81)), (81, 81))
    return np.rint(inside * warped + (1 - inside) * around).astype(np.uint8)


def displacement(found: Square, true: Square) -> float:
    """Mean distance of the corners, in pixels of an aligned face of 256 pixels."""
    return float(np.abs(found.corners() - true.corners()).mean() / true.edge * 256)
