"""Skin and light of an aligned face. Generated faces are aligned, so no face detection is needed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voicestyle.evaluation.pixels import read_pixels

# Cheeks and nose of an FFHQ-aligned face, without mouth and eyebrows: rows and columns as shares of the edge.
ROWS = (0.50, 0.66)
COLUMNS = (0.33, 0.67)
REC_601 = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Light:
    """Lumas (Rec. 601) of a square face, 0 (black) to 255 (white).

    skin: mean of the central skin region. brightness: mean of the whole image. side: mean of the left half of the skin
    region, as seen, less that of the right half; light from the left gives a positive value.
    """

    skin: float
    brightness: float
    side: float

    @classmethod
    def of(cls, image: bytes) -> "Light":
        """Measure an image file."""
        luma = read_pixels(image).astype(np.float64) @ np.array(REC_601)
        skin = luma[_part(luma.shape[0], ROWS), _part(luma.shape[1], COLUMNS)]
        middle = skin.shape[1] // 2
        return cls(float(skin.mean()), float(luma.mean()), _difference(skin[:, :middle], skin[:, -middle:]))


def _part(size: int, shares: tuple[float, float]) -> slice:
    return slice(*(round(share * size) for share in shares))


def _difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(one.mean() - other.mean())
