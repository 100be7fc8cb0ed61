"""Squares, and the pictures in them; the frame of generated faces comes back."""

import numpy as np
import pytest
from PIL import Image

from tests.support.placed_faces import PICTURE_SIZE, displacement, place, random_square
from voicestyle.photographs.alignment import Square, centre_crop, cut, ffhq_square
from voicestyle.photographs.detectors import DlibDetector, YuNetDetector
from voicestyle.photographs.five_points import CENTRE, HALF, MIRRORED, fit_weights, five_point_square

RANDOM = np.random.default_rng(0)
EYES, MOUTH = (-10 + 0j, 10 + 0j), (-7 + 24j, 7 + 24j)


def smooth_picture(height, width):
    """Every pixel differs, and interpolation is exact to a rounding: red rises to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / (width - 1), y * 255 / (height - 1), np.full_like(x, 128)], -1).round().astype(np.uint8)


def test_the_published_square_of_a_frontal_face():
    square = ffhq_square(EYES, MOUTH)  # the mouth is 24 below the eyes, the eyes 20 apart
    assert square.centre == pytest.approx(2.4j)
    assert square.edge == pytest.approx(max(4.0 * 20, 3.6 * 24))
    assert square.half.imag == pytest.approx(0)
    wide = ffhq_square((-20 + 0j, 20 + 0j), MOUTH)
    assert wide.edge == pytest.approx(4.0 * 40)


def test_the_square_turns_with_the_face():
    move = lambda point: 3 * np.exp(0.4j) * point + 50 + 20j  # noqa: E731
    upright, turned = ffhq_square(EYES, MOUTH), ffhq_square(tuple(map(move, EYES)), tuple(map(move, MOUTH)))
    assert turned.corners() == pytest.approx(move(upright.corners()))
    assert turned.inside(turned.corners()) == pytest.approx(np.array([-1 - 1j, 1 - 1j, 1 + 1j, -1 + 1j]))


def test_a_square_of_whole_pixels_is_copied():
    picture = RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    large = np.array(Image.fromarray(picture).resize((256, 256), Image.Resampling.BICUBIC))
    cut_out = cut(large, Square(complex(127.5, 127.5), 128 + 0j))
    assert np.abs(cut_out.astype(int) - large).mean() < 2


@pytest.mark.parametrize("edge", [100, 300, 1500])
def test_positions_and_colours_are_kept_at_every_size(edge):
    picture = smooth_picture(1600, 1600)
    square = Square(complex(800, 780), edge / 2 + 0j)
    aligned = cut(picture, square).astype(float)
    offsets = (np.arange(256) + 0.5) / 256 * edge - edge / 2
    assert aligned[128, :, 0] == pytest.approx((800 + offsets) * 255 / 1599, abs=1)
    assert aligned[:, 128, 1] == pytest.approx((780 + offsets) * 255 / 1599, abs=1)
    assert (aligned[..., 2] == 128).all()


def test_a_turned_square_is_cut_upright():
    picture = smooth_picture(800, 800)
    aligned = cut(picture, Square(400 + 400j, 200j)).astype(float)  # the right of the face is at the bottom
    assert aligned[128, 255, 1] - aligned[128, 0, 1] == pytest.approx(400 * 255 / 799, abs=3)
    assert np.ptp(aligned[128, :, 0]) <= 2


def test_beyond_the_border_the_picture_is_reflected():
    picture = smooth_picture(256, 256)
    aligned = cut(picture, Square(complex(0, 127.5), 128 + 0j)).astype(int)  # the left half is outside
    assert aligned[:, 127::-1][:, 1:100] == pytest.approx(aligned[:, 127:][:, 1:100], abs=3)


def test_fine_patterns_do_not_alias():
    stripes = np.zeros((2000, 2000, 3), np.uint8)
    stripes[:, ::2] = 255
    aligned = cut(stripes, Square(complex(999.5, 999.5), 950 + 0j))
    assert aligned.std() < 3
    assert aligned.mean() == pytest.approx(127.5, abs=2)


@pytest.mark.parametrize("size", [(128, 128), (300, 500), (500, 300), (257, 1000), (40, 41)])
def test_the_centre_crop_is_the_published_one(size):
    picture = RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)
    height, width = (int(256 * side / min(size)) for side in size)
    whole = np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
    top, left = round((height - 256) / 2), round((width - 256) / 2)
    expected = whole[top : top + 256, left : left + 256].astype(int)
    assert np.abs(centre_crop(picture) - expected).max() <= 1


def test_the_centre_crop_of_a_line_stays_small():
    assert centre_crop(np.zeros((1, 2**22, 3), np.uint8)).shape == (256, 256, 3)  # resized whole: 800 GB


def test_the_five_point_square_moves_and_mirrors_with_the_face():
    points = np.array([-10 - 5j, 10 - 5j, 0.5 + 6j, -7 + 15j, 7 + 15j])
    upright = five_point_square(points)
    moved = five_point_square(2j * points + 7)
    assert moved.corners() == pytest.approx(2j * upright.corners() + 7)
    mirrored = five_point_square(-points.conj()[MIRRORED])
    assert mirrored.centre == pytest.approx(-upright.centre.conjugate(), abs=1e-3)
    assert mirrored.half == pytest.approx(upright.half.conjugate(), abs=1e-3)
    assert CENTRE.sum() == pytest.approx(1)
    assert HALF.sum() == pytest.approx(0, abs=1e-9)


def test_weights_are_found_again_despite_wrong_faces():
    shape = np.array([-10 - 5j, 10 - 5j, 6j, -7 + 15j, 7 + 15j])
    points = shape + (RANDOM.normal(size=(200, 5)) + 1j * RANDOM.normal(size=(200, 5)))
    points *= np.exp(1j * RANDOM.uniform(-0.5, 0.5, (200, 1)))
    squares = [five_point_square(each) for each in points]
    points[:10] += 5 * RANDOM.normal(size=(10, 5))
    centre, half = fit_weights(points, squares)
    found = [Square(complex(each @ centre), complex(each @ half)) for each in points[10:]]
    errors = [displacement(square, true) for square, true in zip(found, squares[10:], strict=True)]
    assert np.median(errors) < 1


# Medians of 80 faces are in docs/photographs.md.
@pytest.mark.long
@pytest.mark.parametrize(("kind", "limit"), [(DlibDetector, 6), (YuNetDetector, 14)])
def test_the_frame_of_generated_faces_comes_back(kind, limit, faces):
    detector = kind()
    errors = []
    for seed, face in faces.items():
        picture, true = place(face, random_square(seed)), random_square(seed)
        assert picture.shape == (*PICTURE_SIZE[::-1], 3)
        (found,) = detector.find(picture)
        errors.append(displacement(detector.square(detector.refine(picture, found)), true))
        assert errors[-1] < 3 * limit
    assert np.median(errors) < limit


def test_the_aligned_face_is_the_generated_one(faces):
    face, square = faces[1], random_square(1)
    aligned = cut(place(face, square), square).astype(float)
    expected = np.array(Image.fromarray(face).resize((256, 256), Image.Resampling.LANCZOS)).astype(float)
    inside = slice(8, -8)
    error = np.square(aligned - expected)[inside, inside].mean()
    assert 10 * np.log10(255**2 / error) > 30
