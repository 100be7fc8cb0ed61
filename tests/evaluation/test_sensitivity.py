"""Changes of face images, sensitivity of the similarity, and the contact sheet."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.evaluation.test_generation import png
from voicestyle.bundle import Bundle
from voicestyle.engine import encoder_input
from voicestyle.evaluation.contact_sheet import BACKGROUND, SheetSpeaker, write_contact_sheet
from voicestyle.evaluation.image_changes import face_oval, with_background, with_colour, with_light
from voicestyle.evaluation.intervals import Bootstrap
from voicestyle.evaluation.light import REC_601
from voicestyle.evaluation.sensitivity import face_embedder, measure_sensitivity


@pytest.fixture
def face():
    return np.random.default_rng(1).uniform(60, 180, (64, 64, 3)).astype(np.float32)


def test_a_background_is_replaced_outside_the_oval_alone(face):
    oval = face_oval(64)
    changed = with_background(face, np.zeros_like(face))
    assert np.array_equal(changed[20:52, 22:42], face[20:52, 22:42])  # eyes, nose and mouth
    for corner in (changed[:8], changed[:, :8], changed[:, -8:], changed[-2:]):
        assert not corner.any()
    assert np.array_equal(oval, oval[:, ::-1])
    assert ((oval > 0) & (oval < 1)).any()  # a soft edge


def test_light_is_a_gain_and_a_slope_from_left_to_right(face):
    assert with_light(face, 1.3, 0) == pytest.approx(face * 1.3)
    sloped = with_light(face, 1, 0.35) / face
    assert sloped[:, 0] == pytest.approx(1 - 0.35 * 63 / 64)
    assert sloped[:, -1] == pytest.approx(1 + 0.35 * 63 / 64)
    assert with_light(face, 9, 0).max() == 255


def test_colour_keeps_the_luma(face):
    luma = np.array(REC_601, np.float32)
    grey = with_colour(face, 0, 0)
    assert grey == pytest.approx(np.repeat((face @ luma)[..., None], 3, axis=-1), abs=1e-3)
    assert with_colour(face, 0, 1) == pytest.approx(face, abs=1e-3)
    assert with_colour(face, 360, 1) == pytest.approx(face, abs=1e-3)
    soft = 128 + (face - 128) / 4  # far from the limits, so that nothing is clipped
    for angle, saturation in ((15, 1), (0, 1.4), (120, 0.6)):
        changed = with_colour(soft, angle, saturation)
        assert changed @ luma == pytest.approx(soft @ luma, abs=1e-3)
        assert np.abs(changed - soft).max() > 1
    red = np.array([[[200, 100, 100]]], np.float32)
    turned = with_colour(red, 180, 1)[0, 0]
    assert turned[0] < turned[1]


def mean_luma(pixels):
    """A unit vector [2] that sees the mean luma alone."""
    angle = float((pixels @ np.array(REC_601, np.float32)).mean()) / 255
    return np.array([np.cos(angle), np.sin(angle)])


def test_sensitivity_is_the_mean_absolute_change_of_similarity(face):
    levels = (100, 120, 140, 160)
    images = [png(np.full((64, 64, 3), level)) for level in levels]
    voices = [torch.tensor([2.0, 0.0])] * 4
    found = measure_sensitivity(mean_luma, images, voices, ["a", "a", "b", "c"], ["F", "F", "M", "M"], Bootstrap(100))
    similarity = np.cos(np.array(levels) / 255)
    assert found.faces == 4
    assert found.colour.value == pytest.approx(0, abs=1e-6)  # grey has no colour
    lit = [[abs(np.cos(level * gain / 255) - np.cos(level / 255)) for gain in (0.75, 1.3, 1, 1)] for level in levels]
    assert found.light.value == pytest.approx(np.mean(lit), abs=1e-4)
    pairs = [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    swaps = [abs(similarity[i] - similarity[j]) for i, j in pairs]
    assert found.another_speaker.value == pytest.approx(np.mean(swaps))
    assert found.another_speaker_of_one_sex.value == pytest.approx(swaps[-1])
    assert 0 < found.background.value < found.another_speaker_of_one_sex.value  # between the two men alone
    assert found.spread == pytest.approx(np.std([similarity[:2].mean(), similarity[2], similarity[3]]))
    alone = measure_sensitivity(mean_luma, images[:1], voices[:1], ["a"], ["F"], Bootstrap(100))
    assert (alone.background, alone.another_speaker, alone.another_speaker_of_one_sex) == (None, None, None)


def test_the_face_encoder_sees_what_the_loss_sees(tiny_bundle, face):
    bundle = Bundle.load(tiny_bundle)
    image = torch.from_numpy(face).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = torch.nn.functional.normalize(bundle.face_encoder(encoder_input(image, 32, 32)))[0]
    assert face_embedder(bundle, "cpu")(face) == pytest.approx(expected.double().numpy(), abs=1e-6)


def test_a_contact_sheet_has_a_row_for_each_recording_and_a_column_for_each_kind(tmp_path):
    def filled(level):
        return png(np.full((32, 32, 3), level))

    rows = ((0, 80, 160), (40, 120, 200))
    faces = [dict(zip(("first", "instant", "last"), map(filled, levels), strict=True)) for levels in rows]
    speakers = [SheetSpeaker(number, "FM"[number % 2], faces) for number in range(1, 6)]
    write_contact_sheet(tmp_path / "new" / "sheet.jpg", speakers, cell=48)
    with Image.open(tmp_path / "new" / "sheet.jpg") as sheet:
        assert sheet.format == "JPEG"
        pixels = np.asarray(sheet.convert("L")).astype(int)
    assert pixels.shape == (2 * (2 * 48 + 18 + 14) + 18 + 14, 4 * (3 * 48 + 14) + 14)
    # The cells of the fifth speaker, who is the first of the second row.
    left, top = 14, 7 + 18 + (2 * 48 + 18 + 14) + 18
    for row, levels in enumerate(rows):
        for column, level in enumerate(levels):
            cell = pixels[top + row * 48 + 4 : top + row * 48 + 44, left + column * 48 + 4 : left + column * 48 + 44]
            assert cell == pytest.approx(level, abs=6)
    assert (pixels[top - 16 : top - 2, left : left + 70] < 120).any()  # the label
    assert BACKGROUND == "white"
    assert (pixels[top:, left + 3 * 48 + 8 + 150 :] > 240).all()  # nobody is there
    with pytest.raises(ValueError, match="at least one speaker"):
        write_contact_sheet(tmp_path / "sheet.jpg", [])


def test_a_contact_sheet_is_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((256, 256)).save(stream, "PNG")
    faces = [dict.fromkeys(("first", "instant", "last"), stream.getvalue())] * 2
    write_contact_sheet(tmp_path / "sheet.jpg", [SheetSpeaker(number, "F", faces) for number in range(20)])
    assert (tmp_path / "sheet.jpg").stat().st_size < 400_000
