"""Find the face of a picture, align it and measure what the gates look at."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from voicestyle.photographs.alignment import Square, centre_crop, cut
from voicestyle.photographs.detectors import Detector
from voicestyle.photographs.gates import Figures
from voicestyle.photographs.pose import pose_of

# A smaller face beside the largest is a bystander or an error of the detector, and is not counted.
COUNTED_EDGE = 0.5

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Measured:
    """aligned: uint8 RGB [256, 256, 3]. square: of the largest face, in pixels of the picture. None without a face."""

    figures: Figures
    aligned: Pixels | None
    square: Square | None


def measure(detector: Detector, pixels: Pixels, scale: float, align: bool) -> Measured:
    """Measure a picture uint8 [H, W, 3].

    scale: pixels of the source per pixel of the picture. align: False to take the middle of the picture, which is then
    returned even if no face is found.
    """
    faces = detector.find(pixels)
    aligned = None if align else centre_crop(pixels)
    if not faces:
        return Measured(Figures(faces=0), aligned, None)
    largest = detector.refine(pixels, max(faces, key=lambda face: face.edge))
    square = detector.square(largest)
    if not square.is_usable():
        return Measured(Figures(faces=0), aligned, None)
    pose = pose_of(largest.points[detector.posed], detector.head, square)
    if aligned is None:
        aligned = cut(pixels, square)
    figures = Figures(
        faces=sum(face.edge >= COUNTED_EDGE * largest.edge for face in faces),
        score=largest.score,
        size=float(scale * (square.edge if align else min(pixels.shape[:2]))),
        yaw=pose.yaw if pose else None,
        pitch=pose.pitch if pose else None,
        sharpness=sharpness(aligned),
        outside=square.middle.outside(*pixels.shape[:2]) if align else 0.0,
    )
    return Measured(figures, aligned, square)


def sharpness(aligned: Pixels) -> float:
    """Variance of the Laplacian of an RGB image uint8 [H, W, 3], converted to grey."""
    return float(cv2.Laplacian(cv2.cvtColor(aligned, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())
