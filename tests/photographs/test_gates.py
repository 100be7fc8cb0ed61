"""Each gate at both sides of its threshold, and thresholds out of range."""

from dataclasses import replace

import numpy as np
import pytest

from voicestyle.photographs import Figures, Gates, PhotographError

GATES = Gates(max_faces=1, min_score=0.5, min_size=100, max_yaw=20, max_pitch=15, min_sharpness=30, max_outside=0.2)
GOOD = Figures(faces=1, score=0.5, size=100, yaw=20, pitch=-15, sharpness=30, outside=0.2)


def test_a_photograph_passes_at_exactly_the_thresholds():
    assert GATES.reason_against(GOOD, min_score=9) is None
    assert GATES.reason_against(replace(GOOD, yaw=-20, pitch=15), min_score=9) is None


@pytest.mark.parametrize(
    ("figure", "value", "reason"),
    [
        ("faces", 0, "no face found, must be 1"),
        ("faces", None, "no face found, must be 1"),
        ("faces", 2, "2 faces found, must be 1"),
        ("score", 0.49, "detector score 0.49, must be at least 0.5"),
        ("score", None, "detector score could not be measured, must be at least 0.5"),
        ("size", 99.9, "size of the face's square 99.9 pixels, must be at least 100 pixels"),
        ("yaw", 20.1, "yaw +20.1°, must be within ±20°"),
        ("yaw", -20.1, "yaw -20.1°, must be within ±20°"),
        ("yaw", None, "yaw could not be measured, must be within ±20°"),
        ("pitch", 15.1, "pitch +15.1°, must be within ±15°"),
        ("pitch", -15.1, "pitch -15.1°, must be within ±15°"),
        ("sharpness", 29.9, "sharpness 29.9, must be at least 30"),
        ("outside", 0.21, "21.0% of the face outside the picture, must be at most 20%"),
        (
            "outside",
            None,
            "share of the face outside the picture could not be measured, must be at most 20%",
        ),
    ],
)
def test_a_photograph_fails_just_beyond_a_threshold(figure, value, reason):
    assert GATES.reason_against(replace(GOOD, **{figure: value}), min_score=0) == reason


def test_more_faces_can_be_allowed():
    gates = replace(GATES, max_faces=3)
    assert gates.reason_against(replace(GOOD, faces=3), min_score=0) is None
    assert gates.reason_against(replace(GOOD, faces=4), min_score=0) == "4 faces found, must be 1 to 3"
    assert gates.reason_against(replace(GOOD, faces=0), min_score=0) == "no face found, must be 1"


def test_without_a_score_the_detector_has_its_own():
    gates = replace(GATES, min_score=None)
    assert gates.reason_against(GOOD, min_score=0.5) is None
    assert gates.reason_against(GOOD, min_score=0.6) == "detector score 0.50, must be at least 0.6"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_faces", 0),
        ("min_size", -1),
        ("max_yaw", np.nan),
        ("max_pitch", -0.1),
        ("min_sharpness", np.inf),
    ],
)
def test_thresholds_have_a_range(option, value):
    with pytest.raises(PhotographError, match=f"{option} must be"):
        Gates(**{option: value})


def test_a_score_may_be_negative():
    assert Gates(min_score=-0.5).min_score == -0.5
