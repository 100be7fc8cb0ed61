"""The square that FFHQ cuts around a face, and the picture inside of it.

The square follows the published description (arXiv 1710.10196, appendix C, which FFHQ kept): its centre and size are
functions of the eye and mouth positions, and its sides follow their directions.

Points are complex numbers x + iy in pixels, the centre of the first pixel is 0, and y points down. Multiplying by a
complex number rotates and scales, so a square is its centre and the vector from there to the middle of its right side.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 256
OVERSAMPLING = 2

# From the eyes towards the mouth, as a fraction of their distance; edges as multiples of the distances of the eyes and
# of eyes and mouth.
DOWN = 0.1
EDGE_PER_EYES = 4.0
EDGE_PER_MOUTH = 3.6

Pixels = NDArray[np.uint8]
Points = NDArray[np.complex128]


@dataclass(frozen=True)
class Square:
    """A square that may be rotated. half: from the centre to the middle of the side that is on the right."""

    centre: complex
    half: complex

    @property
    def edge(self) -> float:
        """Length of a side in pixels."""
        return 2 * abs(self.half)

    def corners(self) -> Points:
        """Points [4]: top left, top right, bottom right, bottom left of the upright face."""
        return self.centre + self.half * np.array([-1 - 1j, 1 - 1j, 1 + 1j, -1 + 1j])

    def inside(self, points: Points) -> Points:
        """Points in coordinates of the square: −1 to 1 from left to right and from top to bottom."""
        return (points - self.centre) / self.half


def ffhq_square(eyes: tuple[complex, complex], mouth: tuple[complex, complex]) -> Square:
    """The square of a face from the centres of its eyes and the corners of its mouth, the picture's left ones first."""
    between_eyes = (eyes[0] + eyes[1]) / 2
    across = eyes[1] - eyes[0]
    down = (mouth[0] + mouth[1]) / 2 - between_eyes
    direction = across - 1j * down  # the mean of two directions that are equal in a frontal face
    edge = max(EDGE_PER_EYES * abs(across), EDGE_PER_MOUTH * abs(down))
    return Square(between_eyes + DOWN * down, direction / abs(direction) * edge / 2)


def cut(pixels: Pixels, square: Square, size: int = SIZE) -> Pixels:
    """Resample the inside of `square` to uint8 [size, size, 3]; beyond the picture's borders it is reflected."""
    fine = size * OVERSAMPLING
    shrink = fine / square.edge
    scale = np.ones(2)
    if shrink < 1:
        # The interpolation below looks at four pixels a side, so more source pixels than results would alias.
        height, width = pixels.shape[:2]
        small = max(1, round(width * shrink)), max(1, round(height * shrink))
        scale = np.array(small) / (width, height)
        pixels = np.array(Image.fromarray(pixels).resize(small, Image.Resampling.LANCZOS))
    step = square.half * 2 / fine
    first = square.centre + square.half * (-1 - 1j) + step * (0.5 + 0.5j)
    to_source = np.array([[step.real, -step.imag, first.real], [step.imag, step.real, first.imag]])
    to_source *= scale[:, None]
    to_source[:, 2] += (scale - 1) / 2  # the first pixel's centre stays at 0
    warped = cv2.warpAffine(
        pixels,
        to_source,
        (fine, fine),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.array(Image.fromarray(warped).resize((size, size), Image.Resampling.LANCZOS))


def centre_crop(pixels: Pixels, size: int = SIZE) -> Pixels:
    """Resize the shorter side to `size` and cut the middle: uint8 [size, size, 3], as published for aligned crops.

    Only the middle is computed, because a picture of one pixel's width would become a very large one.
    """
    image = Image.fromarray(pixels)
    shorter = min(image.size)
    resized = [int(size * side / shorter) for side in image.size]
    first = [round((side - size) / 2) for side in resized]
    scale = [before / after for before, after in zip(image.size, resized, strict=True)]
    box = (first[0] * scale[0], first[1] * scale[1], (first[0] + size) * scale[0], (first[1] + size) * scale[1])
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR, box))
