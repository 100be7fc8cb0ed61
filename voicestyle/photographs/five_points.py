"""The square of FFHQ from five points, by weights that were fitted to generated faces.

FFHQ's definition needs the 68 landmarks that it was made with. YuNet's five points lie elsewhere on the face, so the
square is another fixed function of them: its centre and its half edge are sums of the points with complex weights. It
turns, scales and moves with the face, and a mirrored face has the mirrored square.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voicestyle.photographs.alignment import Points, Square

# Eyes, nose tip, corners of the mouth, left ones of the picture first. CENTRE adds up to 1, HALF to 0.
CENTRE = np.array([0.4204 + 0.0132j, 0.4204 - 0.0132j, -0.0396, 0.0994 + 0.0423j, 0.0994 - 0.0423j])
HALF = np.array([-1.0793 + 0.4631j, 1.0793 + 0.4631j, 0.1486j, 0.1688 - 0.5374j, -0.1688 - 0.5374j])

# `benchmarks/photographs.py` measures on the generated faces below this seed; the weights were fitted on 300 from it.
FIRST_FITTED = 80
MIRRORED = np.array([1, 0, 2, 4, 3])  # the order of the points in a mirrored picture
ROUNDS = 8
LEAST_ERROR = 0.03  # of half an edge: smaller errors count alike


def five_point_square(points: Points) -> Square:
    """The square of points [5]."""
    return Square(complex(points @ CENTRE), complex(points @ HALF))


def fit_weights(points: NDArray[np.complex128], squares: Sequence[Square]) -> tuple[Points, Points]:
    """CENTRE and HALF [5] for points [N, 5] of faces with known squares: least absolute errors, by reweighting.

    Absolute and not squared errors, because a few faces have points that are far off.
    """
    inside = np.array([square.inside(each) for each, square in zip(points, squares, strict=True)])
    inside = np.concatenate([inside, -inside.conj()[:, MIRRORED]])
    middle = inside.mean(1)
    around = inside - middle[:, None]
    weight = np.ones(len(inside))
    centre, half = np.zeros(5, complex), np.zeros(5, complex)
    for _ in range(ROUNDS):
        rows = around * weight[:, None]
        centre = np.linalg.lstsq(rows, -middle * weight, rcond=1e-9)[0]
        half = np.linalg.lstsq(rows, weight.astype(complex), rcond=1e-9)[0]
        error = np.abs(middle + around @ centre) + np.abs(around @ half - 1)
        weight = 1 / np.sqrt(np.maximum(error, LEAST_ERROR))
    return centre - centre.mean() + 0.2, half - half.mean()
