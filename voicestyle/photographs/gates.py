"""What is measured of a photograph, and the thresholds that it must meet.

docs/photographs.md has the distributions that the defaults come from.
"""

import math
from dataclasses import dataclass, fields

from voicestyle.photographs.errors import PhotographError


@dataclass(frozen=True)
class Figures:
    """What the gates look at; None where it could not be measured.

    faces: faces found that are at least half as large as the largest. score: the detector's score of the largest face,
    in the detector's own unit. size: edge of the aligned square in pixels of the source image. yaw, pitch: degrees; 0
    is frontal, positive where the face looks to the right of the picture, and up. sharpness: variance of the Laplacian
    of the aligned grey image of 256 pixels. outside: share of the face, the middle of the square with 70 % of its edge,
    that lies beyond the picture, 0 to 1; it is filled with reflections.
    """

    faces: int | None = None
    score: float | None = None
    size: float | None = None
    yaw: float | None = None
    pitch: float | None = None
    sharpness: float | None = None
    outside: float | None = None


@dataclass(frozen=True)
class Gates:
    """Thresholds; a photograph passes at exactly the threshold.

    min_score: None stands for the default of the detector in use, whose scores have their own unit.

    Raises:
        PhotographError: a threshold outside its range.
    """

    max_faces: int = 1
    min_score: float | None = None
    min_size: float = 96.0
    max_yaw: float = 25.0
    max_pitch: float = 25.0
    min_sharpness: float = 15.0
    max_outside: float = 0.1

    def __post_init__(self) -> None:
        if self.max_faces < 1:
            raise PhotographError(f"max_faces must be at least 1, got {self.max_faces}")
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if not math.isfinite(value):
                raise PhotographError(f"{field.name} must be a finite number, got {value}")
            if field.name != "min_score" and value < 0:
                raise PhotographError(f"{field.name} must be a number of at least 0, got {value}")

    def reason_against(self, figures: Figures, min_score: float) -> str | None:
        """The first gate that `figures` do not pass, in one line, or None. min_score: the detector's default."""
        if not figures.faces:
            return "no face found, must be 1"
        if figures.faces > self.max_faces:
            allowed = "1" if self.max_faces == 1 else f"1 to {self.max_faces}"
            return f"{figures.faces} faces found, must be {allowed}"
        least_score = min_score if self.min_score is None else self.min_score
        return (
            _below("detector score", figures.score, least_score, ".2f")
            or _below("size of the face's square", figures.size, self.min_size, ".1f", " pixels")
            or _beyond("yaw", figures.yaw, self.max_yaw)
            or _beyond("pitch", figures.pitch, self.max_pitch)
            or _below("sharpness", figures.sharpness, self.min_sharpness, ".1f")
            or _cut_off(figures.outside, self.max_outside)
        )


DEFAULT_GATES = Gates()


def _below(name: str, value: float | None, least: float, digits: str, unit: str = "") -> str | None:
    if value is None:
        return f"{name} could not be measured, must be at least {least:g}{unit}"
    return f"{name} {value:{digits}}{unit}, must be at least {least:g}{unit}" if value < least else None


def _beyond(name: str, value: float | None, most: float) -> str | None:
    if value is None:
        return f"{name} could not be measured, must be within ±{most:g}°"
    return f"{name} {value:+.1f}°, must be within ±{most:g}°" if abs(value) > most else None


def _cut_off(value: float | None, most: float) -> str | None:
    if value is None:
        return f"share of the face outside the picture could not be measured, must be at most {most:.0%}"
    return f"{value:.1%} of the face outside the picture, must be at most {most:.0%}" if value > most else None
