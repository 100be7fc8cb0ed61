"""What varies in a generated face and has nothing to do with a voice: pose, light, background, glasses, headwear.

Measured in the pixels of FFHQ-aligned faces, whose eyes, cheeks and foreheads are at known places. A latent direction
that predicts one of these values can be held (`voicestyle.latent_prior.predictive_directions`).
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voicestyle.photographs.detectors import YuNetDetector
from voicestyle.photographs.pose import pose_of

REC_601: Final = np.array([0.299, 0.587, 0.114], np.float32)
Region = tuple[float, float, float, float]
"""top, bottom, left, right, as shares of the edge."""

SKIN: Final[Region] = (0.50, 0.66, 0.33, 0.67)  # cheeks and nose, without mouth and eyebrows
LEFT_CHEEK: Final[Region] = (0.54, 0.68, 0.26, 0.38)
RIGHT_CHEEK: Final[Region] = (0.54, 0.68, 0.62, 0.74)
EYES: Final[tuple[Region, Region]] = ((0.44, 0.51, 0.31, 0.43), (0.44, 0.51, 0.57, 0.69))
UNDER_EYES: Final[tuple[Region, Region]] = ((0.52, 0.55, 0.31, 0.43), (0.52, 0.55, 0.57, 0.69))
TOP: Final[Region] = (0.08, 0.24, 0.32, 0.68)  # hair, or what covers it
BACKGROUND: Final[tuple[Region, Region]] = ((0.02, 0.35, 0.0, 0.10), (0.02, 0.35, 0.90, 1.0))

NAMES: Final = (
    "skin luminance",
    "light from the side",
    "turn of the head",
    "dark glasses",
    "colour of headwear",
    "background luminance",
    "background colour",
)
SKIN_LUMINANCE: Final = 0  # its place in `NAMES`


def nuisances(images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """The values of `NAMES`, float32 [N, 7], of aligned faces uint8 [H, H, 3]: degrees, and levels of 0 to 255.

    Raises ImportError without the package `yuface` (`photos` extra), which finds the landmarks of the head's turn.
    """
    detector = YuNetDetector()
    return np.stack([_of_one(image, detector) for image in images])


def _of_one(image: NDArray[np.uint8], detector: YuNetDetector) -> NDArray[np.float32]:
    skin, left, right = (_mean(image, region) for region in (SKIN, LEFT_CHEEK, RIGHT_CHEEK))
    eyes = sum(_mean(image, region) @ REC_601 for region in EYES) / 2
    under = sum(_mean(image, region) @ REC_601 for region in UNDER_EYES) / 2
    top = _mean(image, TOP)
    background = (_mean(image, BACKGROUND[0]) + _mean(image, BACKGROUND[1])) / 2
    return np.array(
        [
            skin @ REC_601,
            (left - right) @ REC_601,
            _turn(image, detector),
            eyes - under,
            top[2] - top[0],
            background @ REC_601,
            background[2] - background[0],
        ],
        np.float32,
    )


def _mean(image: NDArray[np.uint8], region: Region) -> NDArray[np.float32]:
    """Mean colour [3] of a region."""
    size = image.shape[0]
    top, bottom, left, right = (round(share * size) for share in region)
    return image[top:bottom, left:right].astype(np.float32).mean((0, 1))


def _turn(image: NDArray[np.uint8], detector: YuNetDetector) -> float:
    """Yaw in degrees; 0 where no face is found."""
    found = detector.find(np.ascontiguousarray(image))
    if not found:
        return 0.0
    pose = pose_of(found[0].points[detector.posed], detector.head, detector.square(found[0]))
    return pose.yaw if pose else 0.0
