"""Changes of an aligned face image that leave the person as it is: background, light, colour.

Images are float32 [S, S, 3], RGB, 0 to 255, and so are the results. The oval is that of faces aligned as in FFHQ.
"""

from math import cos, radians, sin
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voicestyle.evaluation.light import REC_601

Pixels = NDArray[np.float32]

# As shares of the edge: from the hairline to the chin, and from cheek to cheek.
CENTRE: Final = (0.57, 0.5)  # row, column
SEMI_AXES: Final = (0.35, 0.28)
EDGE: Final = 0.12  # width of the soft edge, as a share of the semi-axes
LIGHTS: Final = ((0.75, 0.0), (1.3, 0.0), (1.0, -0.35), (1.0, 0.35))  # gain, slope
COLOURS: Final = ((-15.0, 1.0), (15.0, 1.0), (0.0, 0.6), (0.0, 1.4))  # angle of hue in degrees, saturation


def face_oval(size: int) -> Pixels:
    """The weight [S, S, 1] of the face: 1 inside an oval, 0 outside, with a soft edge."""
    at = (np.arange(size, dtype=np.float32) + 0.5) / size
    rows, columns = (at - CENTRE[0]) / SEMI_AXES[0], (at - CENTRE[1]) / SEMI_AXES[1]
    radius = np.sqrt(rows[:, None] ** 2 + columns[None] ** 2)
    inside = ((1 + EDGE / 2 - radius) / EDGE).clip(0, 1)
    return (inside * inside * (3 - 2 * inside))[..., None].astype(np.float32)


def with_background(face: Pixels, other: Pixels) -> Pixels:
    """The face's oval on another image of the same size."""
    oval = face_oval(len(face))
    return (oval * face + (1 - oval) * other).astype(np.float32)


def with_light(face: Pixels, gain: float, slope: float) -> Pixels:
    """All levels times `gain`, and times 1 - slope at the left edge up to 1 + slope at the right one."""
    across = (2 * (np.arange(face.shape[1], dtype=np.float32) + 0.5) / face.shape[1] - 1)[None, :, None]
    return (face * gain * (1 + slope * across)).clip(0, 255).astype(np.float32)


def with_colour(face: Pixels, angle: float, saturation: float) -> Pixels:
    """Hue turned by `angle` degrees and saturation scaled, in the plane of colour differences; the luma stays.

    The plane is that of Cb and Cr (Rec. 601); levels beyond 0 and 255 are clipped.
    """
    red, green, blue = REC_601
    luma = face @ np.array(REC_601, np.float32)
    cb, cr = (face[..., 2] - luma) / (1 - blue), (face[..., 0] - luma) / (1 - red)
    turn = radians(angle)
    cb, cr = (
        saturation * (cos(turn) * cb - sin(turn) * cr),
        saturation * (sin(turn) * cb + cos(turn) * cr),
    )
    r, b = luma + (1 - red) * cr, luma + (1 - blue) * cb
    g = (luma - red * r - blue * b) / green
    return np.stack([r, g, b], axis=-1).clip(0, 255)
