"""Landmarks of a face as the mean of several looks at it.

Each look sees the face upright, at another scale or mirrored, and so makes other errors; their mean has smaller ones.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from voicestyle.photographs.alignment import Pixels, Points, Square, cut

SIZE = 256  # of the image of a look
NEAR = 512  # of the surroundings that all looks are taken from, so that a large picture is reduced once

CORNER = 1 + 1j  # from the centre of a square to its bottom right, and to pixels from positions that start at a corner

See = Callable[[Pixels, float], Points | None]
"""Landmarks in an image uint8 [256, 256, 3] whose edge is the given number of edges of the face's square."""


def mean_of_looks(
    pixels: Pixels, square: Square, zooms: tuple[float, ...], order: NDArray[np.int64], see: See
) -> Points | None:
    """The mean landmarks [P] of two looks for each zoom, one of them mirrored, or None if no look finds any.

    order: for each landmark, the one that takes its place in a mirrored picture.
    """
    widest = max(zooms)
    near = cut(pixels, Square(square.centre, square.half * widest), NEAR)
    middle = CORNER * (NEAR - 1) / 2
    found: list[Points] = []
    for zoom in zooms:
        image = cut(near, Square(middle, complex(NEAR / 2 * zoom / widest)), SIZE)
        for mirrored in (False, True):
            points = see(np.ascontiguousarray(image[:, ::-1]) if mirrored else image, zoom)
            if points is None:
                continue
            inside = (points + CORNER / 2) * 2 / SIZE - CORNER
            if mirrored:
                inside = -inside.conj()[order]
            found.append(square.centre + square.half * zoom * inside)
    return np.mean(found, 0) if found else None
