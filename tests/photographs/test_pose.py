"""Yaw and pitch of head models that a camera looks at from known angles."""

import numpy as np
import pytest

from voicestyle.photographs.alignment import Square, ffhq_square
from voicestyle.photographs.detectors import DlibDetector, YuNetDetector
from voicestyle.photographs.pose import HEAD, head_points, pose_of

NAMES = tuple(HEAD)
EYES_AND_MOUTH = [NAMES.index(name) for name in ("left eye", "right eye", "left mouth", "right mouth")]


def turned(yaw, pitch, roll=0.0):
    """Rotation of a head: first up or down, then to a side, then within the picture; degrees."""
    (sy, cy), (sp, cp), (sr, cr) = ((np.sin(a), np.cos(a)) for a in np.deg2rad([yaw, pitch, roll]))
    sideways = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    upwards = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    within = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return within @ sideways @ upwards


def photographed(yaw, pitch, roll=0.0, distance=1300.0, focal=1500.0):
    """Where a camera sees the points of HEAD, complex [N], around the centre of the picture."""
    x, y, z = (head_points(NAMES) @ turned(yaw, pitch, roll).T + (0, 0, distance)).T
    return focal * (x + 1j * y) / z


def measured(points, names=NAMES):
    eyes_and_mouth = points[EYES_AND_MOUTH]
    square = ffhq_square(tuple(eyes_and_mouth[:2]), tuple(eyes_and_mouth[2:]))
    return pose_of(points[[NAMES.index(name) for name in names]], head_points(names), square)


@pytest.mark.parametrize("angle", [-40, -15, 0, 15, 40])
def test_each_angle_comes_back(angle):
    sideways, upwards = measured(photographed(angle, 0)), measured(photographed(0, angle))
    assert (sideways.yaw, sideways.pitch) == pytest.approx((angle, 0), abs=3)
    assert (upwards.yaw, upwards.pitch) == pytest.approx((0, angle), abs=3)


@pytest.mark.parametrize("yaw", [-25, 25])
@pytest.mark.parametrize("pitch", [-15, 15])
def test_both_angles_come_back(yaw, pitch):
    pose = measured(photographed(yaw, pitch))
    assert (pose.yaw, pose.pitch) == pytest.approx((yaw, pitch), abs=3)


@pytest.mark.parametrize("roll", [-30, 30])
def test_roll_changes_neither(roll):
    upright, tilted = measured(photographed(20, 10)), measured(photographed(20, 10, roll))
    assert tilted.yaw == pytest.approx(upright.yaw, abs=1e-3)
    assert tilted.pitch == pytest.approx(upright.pitch, abs=1e-3)


def test_a_head_that_turns_to_the_right_shows_its_nose_further_right():
    points = photographed(20, 0)
    nose, left, right = (points[NAMES.index(name)].real for name in ("nose tip", "left eye", "right eye"))
    assert nose - left > right - nose
    assert measured(points).yaw > 0


def test_a_mirrored_face_has_the_opposite_yaw():
    points = photographed(20, 10)
    other = {"left": "right", "right": "left"}
    swapped = [NAMES.index(" ".join(other.get(word, word) for word in name.split())) for name in NAMES]
    pose, mirrored = measured(points), measured(-points.conj()[swapped])
    assert mirrored.yaw == pytest.approx(-pose.yaw, abs=1e-3)
    assert mirrored.pitch == pytest.approx(pose.pitch, abs=1e-3)


@pytest.mark.parametrize("detector", [DlibDetector, YuNetDetector])
def test_each_detector_has_a_position_for_every_point(detector):
    assert detector.head.shape == (len(detector.posed), 3)


def test_points_that_no_head_explains_have_no_pose():
    points = np.full(5, 0j)
    assert pose_of(points, YuNetDetector.head, Square(0j, 1 + 0j)) is None


def test_the_model_is_symmetric():
    for name, (x, y, z) in HEAD.items():
        if name.startswith("left"):
            assert HEAD[name.replace("left", "right")] == (-x, y, z)
