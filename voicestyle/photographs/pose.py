"""Yaw and pitch of a head, from its landmarks and a generic head model (perspective-n-point)."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from voicestyle.photographs.alignment import Points, Square

# Millimetres from the tip of the nose of a frontal head: to the right of the picture, down, away from the camera.
# Rounded means of adults from anthropometry; left and right are symmetric, so a symmetric face has yaw 0.
HEAD = {
    "nose bridge": (0, -38, 20),
    "nose tip": (0, 0, 0),
    "nose base": (0, 10, 14),
    "left eye": (-31, -34, 32),
    "left eye outside": (-45, -34, 41),
    "left eye inside": (-16, -34, 34),
    "right eye": (31, -34, 32),
    "right eye outside": (45, -34, 41),
    "right eye inside": (16, -34, 34),
    "left mouth": (-26, 31, 25),
    "right mouth": (26, 31, 25),
}
# The square has an edge of some 30 cm, and portraits are taken from more than a metre.
FOCAL_LENGTH = 4.0  # edges of the square


@dataclass(frozen=True)
class Pose:
    """Degrees. yaw: positive where the face looks to the right of the picture. pitch: positive where it looks up."""

    yaw: float
    pitch: float


def head_points(names: tuple[str, ...]) -> NDArray[np.float64]:
    """Rows of `HEAD`, float64 [N, 3]."""
    return np.array([HEAD[name] for name in names], np.float64)


def pose_of(points: Points, head: NDArray[np.float64], square: Square) -> Pose | None:
    """Turn of the head whose points `head` [N, 3] are seen at `points` [N]; None where no position explains them.

    The square removes the head's roll and gives the unknown camera: it looks at its centre.
    """
    inside = square.inside(points)
    seen = np.stack([inside.real, inside.imag], 1)
    focal = 2 * FOCAL_LENGTH  # the square is 2 units wide
    camera = np.diag([focal, focal, 1.0])
    try:
        solved, rotation, position = cv2.solvePnP(head, seen, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    except cv2.error:  # for example, points that coincide
        return None
    # NaN would pass every gate.
    if not solved or not position[2] > 0 or not np.isfinite(rotation).all():
        return None
    x, y, z = -cv2.Rodrigues(rotation)[0][:, 2]  # where the face looks, in coordinates of the camera
    return Pose(math.degrees(math.atan2(x, -z)), math.degrees(math.atan2(-y, math.hypot(x, z))))
