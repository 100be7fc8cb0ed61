"""Nuisances of drawn pictures: each change moves its own value, and the others stay."""

import numpy as np
import pytest

from voicestyle.photographs.detectors import Face, YuNetDetector
from voicestyle.training import nuisances as module
from voicestyle.training.nuisances import NAMES, nuisances

SIZE = 256
SKIN, HAIR, WALL = 150, 90, 60


class NoFace:
    """A detector that finds nothing."""

    def find(self, pixels):
        return []


@pytest.fixture
def measure(monkeypatch):
    """`measure(picture)`: its values by name, of pictures in which no face is found."""
    monkeypatch.setattr(module, "YuNetDetector", NoFace)

    def of(picture):
        values = nuisances([picture])
        assert values.dtype == np.float32
        assert values.shape == (1, len(NAMES))
        return dict(zip(NAMES, values[0].tolist(), strict=True))

    return of


def drawn(size=SIZE):
    """A grey oval before a darker wall, with darker hair above it."""
    picture = np.full((size, size, 3), WALL, np.uint8)
    axis = (np.arange(size) + 0.5) / size
    face = ((axis[None, :] - 0.5) / 0.33) ** 2 + ((axis[:, None] - 0.55) / 0.45) ** 2 < 1
    picture[face] = SKIN
    picture[(axis[:, None] < 0.3) & (np.abs(axis[None, :] - 0.5) < 0.3)] = HAIR
    return picture


def rows(top, bottom, size=SIZE):
    return slice(round(top * size), round(bottom * size))


def changed(before, after):
    return {name for name in NAMES if abs(before[name] - after[name]) > 0.5}


def test_values_of_a_plain_picture(measure):
    plain = measure(drawn())
    assert plain["skin luminance"] == pytest.approx(SKIN, abs=0.5)
    assert plain["background luminance"] == pytest.approx(WALL, abs=0.5)
    for name in NAMES:
        if "luminance" not in name:
            assert plain[name] == pytest.approx(0, abs=1e-3), name


def test_a_dark_bar_over_the_eyes_is_glasses(measure):
    picture = drawn()
    picture[rows(0.44, 0.51), rows(0.25, 0.75)] = 20
    before, after = measure(drawn()), measure(picture)
    assert after["dark glasses"] == pytest.approx(20 - SKIN, abs=1)
    assert changed(before, after) <= {"dark glasses", "skin luminance"}  # the bar covers the top of the skin's region
    assert after["skin luminance"] > before["skin luminance"] - 15


def test_a_blue_top_is_headwear(measure):
    blue, red = drawn(), drawn()
    blue[rows(0.0, 0.3), rows(0.2, 0.8)] = (20, 20, 220)
    red[rows(0.0, 0.3), rows(0.2, 0.8)] = (220, 20, 20)
    before, after = measure(drawn()), measure(blue)
    assert after["colour of headwear"] == pytest.approx(200, abs=1)
    assert changed(before, after) == {"colour of headwear"}
    assert measure(red)["colour of headwear"] == pytest.approx(-200, abs=1)


def test_light_from_one_side_has_a_sign(measure):
    ramp = np.linspace(1.3, 0.7, SIZE)[None, :, None]
    lit = (drawn() * ramp).astype(np.uint8)
    before, left, right = measure(drawn()), measure(lit), measure(lit[:, ::-1])
    assert left["light from the side"] > 20
    assert right["light from the side"] == pytest.approx(-left["light from the side"], abs=1)
    assert changed(before, left) <= {"light from the side", "skin luminance"}


def test_light_everywhere_is_no_light_from_the_side(measure):
    bright = (drawn() * 1.4).astype(np.uint8)
    assert measure(bright)["skin luminance"] == pytest.approx(SKIN * 1.4, abs=1)
    assert measure(bright)["light from the side"] == pytest.approx(0, abs=0.5)


def test_a_bright_or_coloured_background(measure):
    bright, yellow = drawn(), drawn()
    for columns in (rows(0, 0.12), rows(0.88, 1)):
        bright[:, columns] = 240
        yellow[:, columns] = (WALL, WALL, 0)
    before, after = measure(drawn()), measure(bright)
    assert after["background luminance"] == pytest.approx(240, abs=0.5)
    assert changed(before, after) == {"background luminance"}
    assert measure(yellow)["background colour"] == pytest.approx(-WALL, abs=0.5)


def test_both_sides_of_the_background_count_half(measure):
    half = drawn()
    half[:, rows(0, 0.12)] = 240
    assert measure(half)["background luminance"] == pytest.approx((240 + WALL) / 2, abs=0.5)


def test_regions_are_shares_of_the_edge(measure):
    for size in (64, 128, 256):
        assert measure(drawn(size))["skin luminance"] == pytest.approx(SKIN, abs=0.5)
        assert measure(drawn(size))["background luminance"] == pytest.approx(WALL, abs=0.5)


def test_no_face_has_no_turn():
    """By the real detector, which finds none in this picture."""
    flat = np.full((SIZE, SIZE, 3), 128, np.uint8)
    assert nuisances([flat])[0, NAMES.index("turn of the head")] == 0


@pytest.mark.parametrize("degrees", [-25, 0, 25])
def test_the_turn_is_the_yaw_of_the_landmarks(monkeypatch, degrees):
    """Positive where the face looks to the right of the picture; by the five points of a head that was turned."""
    turn = np.deg2rad(degrees)
    x, y, z = YuNetDetector.head.T
    # The tip of the nose, at the origin, is nearest to the camera; the rest turns about the middle of the head.
    across = (x * np.cos(turn) - (z - 100) * np.sin(turn)) * 0.8 + SIZE / 2

    class Turned(YuNetDetector):
        def find(self, pixels):
            return [Face(across + 1j * (y * 0.8 + SIZE / 2), SIZE / 2, 0.9)]

    monkeypatch.setattr(module, "YuNetDetector", Turned)
    measured = nuisances([drawn()])[0, NAMES.index("turn of the head")]
    assert measured == pytest.approx(degrees, abs=6)
