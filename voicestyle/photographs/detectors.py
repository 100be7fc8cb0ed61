"""Face detectors and what each knows of its landmarks: dlib with 68 points, and YuNet with five.

Both come from optional packages, which are imported when a detector is made. Each works on a copy of the picture of
bounded size and returns positions in the picture's own pixels.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from voicestyle.photographs.alignment import Pixels, Points, Square, ffhq_square
from voicestyle.photographs.errors import PhotographError
from voicestyle.photographs.five_points import MIRRORED, five_point_square
from voicestyle.photographs.looks import mean_of_looks
from voicestyle.photographs.pose import head_points

# For each of dlib's landmarks, the one that takes its place in a mirrored picture.
_JAW, _BROWS, _NOSE = range(16, -1, -1), range(26, 16, -1), (27, 28, 29, 30, 35, 34, 33, 32, 31)
_EYES = (45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40)
_OUTER_LIPS, _INNER_LIPS = (*range(54, 47, -1), *range(59, 54, -1)), (*range(64, 59, -1), *range(67, 64, -1))
MIRRORED_68 = np.array([*_JAW, *_BROWS, *_NOSE, *_EYES, *_OUTER_LIPS, *_INNER_LIPS])


@dataclass(frozen=True)
class Face:
    """A face that was found. points: complex [P], of the detector's landmarks. edge: mean side of its box in pixels.

    score: the higher, the more certain; its unit is the detector's own.
    """

    points: Points
    edge: float
    score: float


class Detector(Protocol):
    """Finds faces.

    name: for outputs. min_score: the default gate. posed: indices of the landmarks that give the pose. head: their
    positions on the head, float64 [N, 3].
    """

    name: str
    min_score: float
    posed: NDArray[np.int64]
    head: NDArray[np.float64]

    def find(self, pixels: Pixels) -> list[Face]:
        """All faces of a picture uint8 [H, W, 3]."""
        ...

    def refine(self, pixels: Pixels, face: Face) -> Face:
        """The same face with landmarks of smaller errors."""
        ...

    def square(self, face: Face) -> Square:
        """The square that FFHQ would cut around it."""
        ...


def clamped(pixels: Pixels, least: int, most: int) -> tuple[Pixels, float]:
    """The picture with its longest side between two limits, and pixels of it per pixel of the original."""
    longest = max(pixels.shape[:2])
    scale = min(max(longest, least), most) / longest
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(pixels, size, interpolation=method).astype(np.uint8, copy=False), scale


def original(points: Points, scale: float) -> Points:
    """Points of a copy in pixels of the original: both count from the centre of their first pixel."""
    return (points + (0.5 + 0.5j)) / scale - (0.5 + 0.5j)


class DlibDetector:
    """dlib's frontal face detector (histograms of oriented gradients) and its 68 landmarks.

    The detector finds faces of at least 80 pixels, and its scores go from 0 to about 3.
    """

    name = "dlib 68 landmarks"
    min_score = 0.2
    NEEDS = (("dlib", "landmarks"), ("face_recognition_models", "landmarks"))

    posed = np.array([27, 30, 33, 36, 39, 42, 45, 48, 54])
    head = head_points(
        (
            "nose bridge",
            "nose tip",
            "nose base",
            "left eye outside",
            "left eye inside",
            "right eye inside",
            "right eye outside",
            "left mouth",
            "right mouth",
        )
    )
    # Longest side in pixels of the copy to search, and of a second one if no face is found.
    LEAST, USUAL, MOST = 512, 1024, 2048
    # The detector's box in the square of FFHQ: edge, and how far below the middle, in edges of the square (medians).
    BOX_EDGE, BOX_DOWN = 0.61, 0.07
    ZOOMS, ROUNDS = (0.9, 1.0, 1.1), 2

    def __init__(self) -> None:
        dlib: Any = importlib.import_module("dlib")
        self._rectangle: Callable[..., Any] = dlib.rectangle
        self._detector: Any = dlib.get_frontal_face_detector()
        self._landmarks: Any = dlib.shape_predictor(str(self.landmark_file()))

    @staticmethod
    def landmark_file() -> Path:
        """The model of 68 landmarks. Its package is not imported, because that needs an old setuptools.

        Raises:
            PhotographError: the installed package does not have the file.
        """
        spec = importlib.util.find_spec("face_recognition_models")
        folders = (spec.submodule_search_locations if spec else None) or []
        for folder in folders:
            path = Path(folder) / "models" / "shape_predictor_68_face_landmarks.dat"
            if path.is_file():
                return path
        raise PhotographError("face_recognition_models must hold shape_predictor_68_face_landmarks.dat, it does not")

    def find(self, pixels: Pixels) -> list[Face]:
        """See `Detector`."""
        copy, scale = clamped(pixels, self.LEAST, self.USUAL)
        boxes, scores, _ = self._detector.run(copy, 0, 0.0)
        if not boxes and max(pixels.shape[:2]) > self.USUAL:
            copy, scale = clamped(pixels, self.LEAST, self.MOST)
            boxes, scores, _ = self._detector.run(copy, 0, 0.0)
        return [self._face(copy, scale, box, score) for box, score in zip(boxes, scores, strict=True)]

    def _face(self, copy: Pixels, scale: float, box: Any, score: float) -> Face:
        edge = (box.width() + box.height()) / 2
        return Face(original(self._fitted(copy, box), scale), edge / scale, float(score))

    def _fitted(self, image: Pixels, box: Any) -> Points:
        """The landmarks [68] of the face in a box, in pixels of the image."""
        return np.array([complex(part.x, part.y) for part in self._landmarks(image, box).parts()])

    def refine(self, pixels: Pixels, face: Face) -> Face:
        """See `Detector`: the mean landmarks of looks at the upright face, and again from the square of that mean."""
        for _ in range(self.ROUNDS):
            points = mean_of_looks(pixels, self.square(face), self.ZOOMS, MIRRORED_68, self._see)
            face = face if points is None else replace(face, points=points)
        return face

    def _see(self, image: Pixels, zoom: float) -> Points:
        size = image.shape[0]
        half, middle = self.BOX_EDGE * size / zoom / 2, size / 2
        top = middle + self.BOX_DOWN * size / zoom - half
        box = self._rectangle(*(round(side) for side in (middle - half, top, middle + half, top + 2 * half)))
        return self._fitted(image, box)

    def square(self, face: Face) -> Square:
        """See `Detector`: FFHQ's own landmarks, so its own definition."""
        points = face.points
        return ffhq_square((points[36:42].mean(), points[42:48].mean()), (points[48], points[54]))


class YuNetDetector:
    """YuNet (Machine Intelligence Research 20, 656, 2023) with five landmarks, in its authors' package `yuface`.

    Scores go from 0 to 1.
    """

    name = "YuNet 5 points"
    min_score = 0.8
    NEEDS = (("yuface", "photos"),)

    posed = np.arange(5)
    head = head_points(("left eye", "right eye", "nose tip", "left mouth", "right mouth"))
    LEAST, MOST = 256, 640
    ZOOMS = (0.8, 1.0, 1.4)

    def __init__(self) -> None:
        self._yuface: Any = importlib.import_module("yuface")

    def find(self, pixels: Pixels) -> list[Face]:
        """See `Detector`."""
        copy, scale = clamped(pixels, self.LEAST, self.MOST)
        return [Face(original(face.points, scale), face.edge / scale, face.score) for face in self._faces(copy)]

    def _faces(self, copy: Pixels) -> list[Face]:
        scores, boxes, landmarks = self._yuface.detect(np.ascontiguousarray(copy[..., ::-1]))
        return [
            Face(points[::2] + 1j * points[1::2], float(box[2:].mean()), float(score) / 100)
            for score, box, points in zip(scores, boxes, landmarks.astype(np.float64), strict=True)
        ]

    def refine(self, pixels: Pixels, face: Face) -> Face:
        """See `Detector`: the mean landmarks of several looks at the upright face."""
        square = ffhq_square((face.points[0], face.points[1]), (face.points[3], face.points[4]))
        points = mean_of_looks(pixels, square, self.ZOOMS, MIRRORED, self._see)
        return face if points is None else replace(face, points=points)

    def _see(self, image: Pixels, zoom: float) -> Points | None:
        faces = self._faces(image)
        return max(faces, key=lambda face: face.edge).points if faces else None

    def square(self, face: Face) -> Square:
        """See `Detector`."""
        return five_point_square(face.points)


DETECTORS: dict[str, type[DlibDetector] | type[YuNetDetector]] = {"dlib": DlibDetector, "yunet": YuNetDetector}


def detector_type(name: str) -> type[DlibDetector] | type[YuNetDetector]:
    """The detector of a name; `auto` is dlib where it is installed and YuNet otherwise.

    Raises:
        PhotographError: an unknown name, or a package is not installed.
    """
    if name == "auto":
        name = "yunet" if _missing(DlibDetector) else "dlib"
    if name not in DETECTORS:
        raise PhotographError(f"the detector must be auto, {' or '.join(DETECTORS)}, got {name}")
    if missing := _missing(DETECTORS[name]):
        raise PhotographError(f"the detector {name} needs {missing[0]}: pip install 'voicestyle[{missing[1]}]'")
    return DETECTORS[name]


def _missing(kind: type[DlibDetector] | type[YuNetDetector]) -> tuple[str, str] | None:
    """The first package that a detector needs and that is not installed, with its extra."""
    return next((need for need in kind.NEEDS if importlib.util.find_spec(need[0]) is None), None)
