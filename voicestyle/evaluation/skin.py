"""Luminance of the skin in an aligned face. Generated faces are aligned, so no face detection is needed."""

import io

import numpy as np
from PIL import Image

# Cheeks and nose of an FFHQ-aligned face, without mouth and eyebrows: rows and columns as shares of the edge.
ROWS = (0.50, 0.66)
COLUMNS = (0.33, 0.67)


def skin_luminance(png: bytes) -> float:
    """Mean luma (Rec. 601) of the central skin region of a square face, 0 (black) to 255 (white)."""
    luma = np.asarray(Image.open(io.BytesIO(png)).convert("L"), np.float64)
    size = luma.shape[0]
    rows, columns = ([round(share * size) for share in shares] for shares in (ROWS, COLUMNS))
    return float(luma[rows[0] : rows[1], columns[0] : columns[1]].mean())
