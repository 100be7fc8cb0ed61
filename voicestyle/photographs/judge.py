"""Judge photographs: read, find the face, align it, measure it and compare with the gates."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voicestyle.photographs.errors import PhotographError
from voicestyle.photographs.gates import DEFAULT_GATES, Figures, Gates
from voicestyle.photographs.reading import UnusablePicture, read_picture

if TYPE_CHECKING:
    from voicestyle.photographs.detectors import Detector


@dataclass(frozen=True)
class Judged:
    """reason: None for a photograph to keep, otherwise the rule and what was received, in one line.

    aligned: uint8 RGB [256, 256, 3], also of a rejected face that could be aligned.
    """

    figures: Figures
    reason: str | None
    aligned: NDArray[np.uint8] | None


class PhotographJudge:
    """Decides which photographs can go into a latent bank, and aligns them.

    detector: `dlib`, `yunet`, or `auto`, which is dlib where it is installed. align: cut the face in the manner of
    FFHQ; False for pictures that are aligned crops already, whose middle is taken as published. `name` says the
    detector. The judge loads its models at the first photograph, and can be pickled.

    Raises:
        PhotographError: an unknown detector, or its packages are not installed.
    """

    def __init__(self, detector: str = "auto", gates: Gates = DEFAULT_GATES, *, align: bool = True) -> None:
        if importlib.util.find_spec("cv2") is None:
            raise PhotographError("photographs need OpenCV: pip install 'voicestyle[photos]'")
        from voicestyle.photographs.detectors import detector_type

        self.gates, self.align = gates, align
        self._kind = detector_type(detector)
        self.name = self._kind.name
        self._loaded: Detector | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the models, which every process loads for itself."""
        return self.__dict__ | {"_loaded": None}

    def __call__(self, path: Path) -> Judged:
        """Judge the photograph in a file. Never raises for what the file holds: that is a reason."""
        try:
            picture = read_picture(path)
        except UnusablePicture as error:
            return Judged(Figures(), str(error), None)
        return self._judge(picture.pixels, picture.scale)

    def judge_pixels(self, pixels: NDArray[np.uint8]) -> Judged:
        """Judge a picture, for example a frame of a video: uint8 RGB [H, W, 3].

        Raises:
            ValueError: another shape or dtype.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise ValueError(f"pixels must be uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
        return self._judge(np.ascontiguousarray(pixels), 1.0)

    def _judge(self, pixels: NDArray[np.uint8], scale: float) -> Judged:
        from voicestyle.photographs.measuring import measure

        if self._loaded is None:
            self._loaded = self._kind()
        measured = measure(self._loaded, pixels, scale, self.align)
        reason = self.gates.reason_against(measured.figures, self._kind.min_score)
        return Judged(measured.figures, reason, measured.aligned)
