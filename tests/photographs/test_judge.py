"""The judge on generated and real faces, with both detectors, in several processes and without its packages."""

import importlib.util
import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.placed_faces import place, random_square
from tests.support.real_photographs import astronaut, group_pictures, partial_faces, real_portraits, single_faces
from voicestyle.photographs import Figures, Gates, Judged, PhotographError, PhotographJudge
from voicestyle.photographs.alignment import centre_crop
from voicestyle.photographs.detectors import DlibDetector, Face, YuNetDetector
from voicestyle.photographs.measuring import measure, sharpness

DETECTORS = {"dlib": "dlib 68 landmarks", "yunet": "YuNet 5 points"}
OPEN = Gates(max_faces=99, min_score=-9, min_size=0, max_yaw=180, max_pitch=180, min_sharpness=0, max_outside=1)


@pytest.fixture(scope="module")
def judges():
    """Both detectors, with their models loaded once."""
    return {name: PhotographJudge(name) for name in DETECTORS}


@pytest.fixture(scope="module")
def picture(faces):
    return place(faces[1], random_square(1))


def test_auto_is_dlib_where_it_is_installed(monkeypatch):
    assert PhotographJudge().name == DETECTORS["dlib"]
    hide(monkeypatch, "dlib")
    assert PhotographJudge().name == DETECTORS["yunet"]


def hide(monkeypatch, *names):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in names else real(name, *rest))


@pytest.mark.parametrize(
    ("hidden", "detector", "message"),
    [
        ("dlib", "dlib", r"the detector dlib needs dlib: pip install 'voicestyle\[landmarks\]'"),
        ("face_recognition_models", "dlib", r"needs face_recognition_models: pip install 'voicestyle\[landmarks\]'"),
        ("yuface", "yunet", r"the detector yunet needs yuface: pip install 'voicestyle\[photos\]'"),
        ("cv2", "auto", r"photographs need OpenCV: pip install 'voicestyle\[photos\]'"),
    ],
)
def test_a_missing_package_names_its_extra(hidden, detector, message, monkeypatch):
    hide(monkeypatch, hidden)
    with pytest.raises(PhotographError, match=message):
        PhotographJudge(detector)


def test_an_unknown_detector_is_an_error():
    with pytest.raises(PhotographError, match="the detector must be auto, dlib or yunet, got opencv"):
        PhotographJudge("opencv")


def test_the_landmark_file_must_be_there(monkeypatch):
    hide(monkeypatch, "face_recognition_models")
    with pytest.raises(PhotographError, match="must hold shape_predictor_68_face_landmarks.dat"):
        DlibDetector.landmark_file()


@pytest.mark.parametrize("name", DETECTORS)
def test_a_real_portrait_is_kept(name, judges):
    judged = judges[name](astronaut())
    assert judges[name].name == DETECTORS[name]
    assert judged.reason is None
    assert judged.aligned.shape == (256, 256, 3)
    assert judged.aligned.dtype == np.uint8
    assert judged.figures.faces == 1
    assert judged.figures.sharpness == sharpness(judged.aligned)


@pytest.mark.long
@pytest.mark.parametrize("name", DETECTORS)
def test_portraits_are_kept_and_groups_rejected(name, judges):
    assert [judges[name](path).reason for path in real_portraits()] == [None] * 5
    groups = [judges[name](path) for path in group_pictures()]
    assert all(judged.aligned is not None for judged in groups)
    rejected = [judged for judged in groups if judged.reason == f"{judged.figures.faces} faces found, must be 1"]
    assert len(rejected) >= 5  # dlib misses the faces of one picture that look to the side


@pytest.mark.parametrize("name", DETECTORS)
def test_a_face_that_the_border_cuts_is_rejected(name, judges):
    for path in partial_faces():
        judged = judges[name](path)
        assert judged.reason.endswith("of the face outside the picture, must be at most 10%")
        assert judged.figures.outside > 0.2


@pytest.mark.long
def test_every_real_file_has_a_result(judges):
    for path in single_faces()[::4]:
        judged = judges["dlib"](path)
        assert (judged.reason is None) <= (judged.aligned is not None)
        assert judged.reason is None or "\n" not in judged.reason


@pytest.mark.parametrize("name", DETECTORS)
def test_a_picture_without_a_face_is_rejected(name, judges):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    for pixels in (noise, np.zeros((300, 400, 3), np.uint8), np.zeros((1, 1, 3), np.uint8), noise[:2]):
        assert judges[name].judge_pixels(pixels) == Judged(Figures(faces=0), "no face found, must be 1", None)


@pytest.mark.parametrize("name", DETECTORS)
def test_two_faces_are_rejected_and_a_small_one_beside_is_not_counted(name, judges, faces):
    face = Image.fromarray(faces[1]).resize((400, 400), Image.Resampling.LANCZOS)
    for size, reason in ((300, "2 faces found, must be 1"), (150, None)):
        both = Image.new("RGB", (900, 500), (90, 90, 90))
        both.paste(face, (40, 40))
        both.paste(Image.fromarray(faces[2]).resize((size, size), Image.Resampling.LANCZOS), (500, 60))
        judged = judges[name].judge_pixels(np.array(both))
        assert judged.figures.faces == (2 if reason else 1)
        assert judged.reason == reason


@pytest.mark.parametrize("name", DETECTORS)
def test_the_file_and_its_pixels_give_the_same(name, judges, picture, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    from_file, from_pixels = judges[name](path), judges[name].judge_pixels(picture)
    assert from_file.figures == from_pixels.figures
    assert np.array_equal(from_file.aligned, from_pixels.aligned)


def test_the_gates_look_at_what_was_measured(judges, picture):
    judge = PhotographJudge("dlib", OPEN)
    judge._loaded = judges["dlib"]._loaded
    figures = judge.judge_pixels(picture).figures
    for step, rejected in ((0, False), (1e-3, True)):
        judge.gates = replace(OPEN, min_sharpness=figures.sharpness + step)
        judged = judge.judge_pixels(picture)
        assert judged.figures == figures
        assert (judged.reason is not None) == rejected
        assert judged.aligned is not None


def test_the_size_counts_pixels_of_the_file(judges, tmp_path):
    image = Image.open(astronaut())
    small, large = tmp_path / "small.jpg", tmp_path / "large.jpg"
    image.save(small, quality=95)
    image.resize((6144, 6144), Image.Resampling.BICUBIC).save(large, quality=95)
    ratio = judges["dlib"](large).figures.size / judges["dlib"](small).figures.size
    assert ratio == pytest.approx(12, rel=0.03)


def test_blur_and_small_pictures_lower_the_sharpness(judges):
    image = Image.open(astronaut())
    figures = judges["dlib"](astronaut()).figures
    quarter = np.array(image.resize((128, 128), Image.Resampling.LANCZOS))
    blurred = judges["dlib"].judge_pixels(quarter).figures
    assert blurred.faces == 1
    assert blurred.sharpness < figures.sharpness / 2
    assert blurred.size == pytest.approx(figures.size / 4, rel=0.1)


def test_the_mirrored_face_looks_the_other_way(judges):
    pixels = np.array(Image.open(astronaut()))
    for judge in judges.values():
        figures = judge.judge_pixels(pixels).figures
        mirrored = judge.judge_pixels(np.ascontiguousarray(pixels[:, ::-1])).figures
        assert mirrored.yaw == pytest.approx(-figures.yaw, abs=5)
        assert mirrored.pitch == pytest.approx(figures.pitch, abs=10)


@pytest.mark.parametrize("name", DETECTORS)
def test_without_alignment_the_middle_is_taken(name, judges, faces):
    judge = PhotographJudge(name, OPEN, align=False)
    judge._loaded = judges[name]._loaded
    pixels = np.array(Image.fromarray(faces[1]).resize((128, 128), Image.Resampling.LANCZOS))
    judged = judge.judge_pixels(pixels)
    assert np.array_equal(judged.aligned, centre_crop(pixels))
    assert judged.figures.size == 128
    assert judged.figures.faces == 1
    nothing = judge.judge_pixels(np.zeros((200, 300, 3), np.uint8))
    assert nothing.aligned.shape == (256, 256, 3)
    assert nothing.reason == "no face found, must be 1"


@pytest.mark.parametrize(("shape", "dtype"), [((9, 9), "u1"), ((9, 9, 3), "f4"), ((9, 9, 4), "u1"), ((0, 9, 3), "u1")])
def test_pixels_of_another_kind_are_an_error(shape, dtype):
    with pytest.raises(ValueError, match=r"pixels must be uint8 \[H, W, 3\], got"):
        PhotographJudge().judge_pixels(np.zeros(shape, dtype))


def test_a_judge_can_be_pickled_with_or_without_its_models(judges, picture):
    judge = judges["yunet"]
    before = judge.judge_pixels(picture)
    assert judge._loaded
    content = pickle.dumps(judge)
    assert len(content) < 1000
    again = pickle.loads(content)
    assert (again.name, again.gates, again.align) == (judge.name, judge.gates, judge.align)
    assert again.judge_pixels(picture).figures == before.figures


def figures_elsewhere(judge, path):
    return judge(path).figures


@pytest.mark.long
def test_other_processes_judge_alike(judges, tmp_path):
    paths = [Path(astronaut()), tmp_path / "missing.jpg"]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.starmap(figures_elsewhere, [(judges["yunet"], path) for path in paths])
    assert elsewhere == [judges["yunet"](path).figures for path in paths]


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(("kind", "count"), [(DlibDetector, 68), (YuNetDetector, 5)])
def test_landmarks_that_coincide_are_no_face(kind, count, monkeypatch):
    detector = kind()
    monkeypatch.setattr(kind, "find", lambda self, pixels: [Face(np.full(count, 5 + 5j), 10.0, 1.0)])
    measured = measure(detector, np.zeros((99, 99, 3), np.uint8), 1.0, align=True)
    assert (measured.figures, measured.aligned) == (Figures(faces=0), None)


def test_both_detectors_have_a_name_for_outputs():
    assert {DlibDetector.name, YuNetDetector.name} == set(DETECTORS.values())
