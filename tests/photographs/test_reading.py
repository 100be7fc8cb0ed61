"""Untrusted files: every bad one gives one line with the rule, and memory is bounded."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from voicestyle.photographs import PhotographJudge
from voicestyle.photographs.reading import LONGEST_SIDE, UnusablePicture, read_picture

ROOT = Path(__file__).parents[2]
RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (30, 40, 3), dtype=np.uint8)
IMAGE = Image.fromarray(NOISE)
DEEP = RANDOM.integers(0, 2**16, (30, 40, 3), dtype=np.uint16)


def save(image, path, **options):
    image.save(path, **options)
    return path


def animated(path):
    return save(IMAGE, path, save_all=True, append_images=[Image.new("RGB", IMAGE.size)])


def written_by_opencv(path, pixels):
    assert cv2.imwrite(str(path), pixels)
    return path


def truncated(path, kept):
    content = save(IMAGE, path).read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    return path


def linked_to_itself(path):
    path.symlink_to(path.name)
    return path


def fifo(path):
    os.mkfifo(path)
    return path


BAD = {
    "empty.jpg": (lambda path: path.touch() or path, "must be an image, received an empty file"),
    "text.jpg": (lambda path: path.write_text("no image" * 9) and path, "received another kind of file"),
    "wave.webp": (lambda path: path.write_bytes(b"RIFF\0\0\0\0WAVE" + bytes(99)) and path, "another kind of file"),
    "photo.heic": (lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(99)) and path, "another kind of file"),
    "half.jpg": (lambda path: truncated(path, 0.5), "damaged or truncated one: image file is truncated"),
    "header.jpg": (lambda path: truncated(path, 0.03), "damaged or truncated one"),
    "half.png": (lambda path: truncated(path, 0.5), "damaged or truncated one"),
    "half.webp": (lambda path: truncated(path, 0.5), "damaged or truncated one"),
    "animated.gif": (animated, "must be one still image, received an animated GIF"),
    "animated.png": (animated, "must be one still image, received an animated PNG"),
    "animated.webp": (animated, "must be one still image, received an animated WEBP"),
    "pages.tif": (animated, "must be one still image, received a TIFF of several pages"),
    "cmyk.jpg": (lambda path: save(IMAGE.convert("CMYK"), path), "must be RGB, grey or palette, received CMYK"),
    "cmyk.tif": (lambda path: save(IMAGE.convert("CMYK"), path), "must be RGB, grey or palette, received CMYK"),
    "deep_grey.png": (lambda path: save(Image.fromarray(DEEP[..., 0]), path), "at most 8 bits a channel, received 16"),
    "deep_grey.tif": (lambda path: save(Image.fromarray(DEEP[..., 0]), path), "at most 8 bits a channel, received 16"),
    "deep.png": (lambda path: written_by_opencv(path, DEEP), "at most 8 bits a channel, received 16"),
    "deep.tif": (lambda path: written_by_opencv(path, DEEP), "at most 8 bits a channel, received 16"),
    "float.tif": (lambda path: save(Image.new("F", (9, 9)), path), "at most 8 bits a channel, received 32"),
    "loop.jpg": (linked_to_itself, "received a loop of symbolic links"),
    "fifo.jpg": (fifo, "must be a file, received a folder, device or pipe"),
    "folder.jpg": (lambda path: path.mkdir() or path, "must be a file, received a folder, device or pipe"),
    "missing.jpg": (lambda path: path, "must be readable: No such file or directory"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_a_reason_in_one_line(name, tmp_path):
    make, expected = BAD[name]
    judged = PhotographJudge()(make(tmp_path / name))
    assert expected in judged.reason
    assert "\n" not in judged.reason
    assert len(judged.reason) < 200
    assert judged.aligned is None
    assert set(vars(judged.figures).values()) == {None}


def test_an_unreadable_file_is_a_reason(tmp_path, monkeypatch):
    path = save(IMAGE, tmp_path / "secret.png")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as a user who can read everything
    with pytest.raises(UnusablePicture, match="must be readable: Permission denied"):
        read_picture(path)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "lossless.webp"])
def test_lossless_files_keep_their_pixels(name, tmp_path):
    path = save(IMAGE, tmp_path / name, **({"lossless": True} if "webp" in name else {}))
    picture = read_picture(path)
    assert np.array_equal(picture.pixels, NOISE)
    assert picture.scale == 1


def test_the_content_decides_on_the_format(tmp_path):
    path = save(IMAGE, tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(read_picture(path).pixels, NOISE)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_grey_palette_and_opaque_alpha_become_rgb(mode, tmp_path):
    image = IMAGE.convert(mode)
    expected = np.array(image.convert("RGB"))
    assert np.array_equal(read_picture(save(image, tmp_path / "a.png")).pixels, expected)


def test_a_still_gif_is_read(tmp_path):
    image = IMAGE.convert("P")
    assert np.array_equal(read_picture(save(image, tmp_path / "a.gif")).pixels, np.array(image.convert("RGB")))


def test_of_a_file_with_several_views_the_first_is_read(tmp_path):
    path = tmp_path / "phone.jpg"
    first, second = Image.new("RGB", (40, 30), (200, 200, 200)), Image.new("RGB", (40, 30))
    first.save(path, format="MPO", save_all=True, append_images=[second])
    assert read_picture(path).pixels.mean() == pytest.approx(200, abs=2)


def test_a_transparent_picture_lies_on_white(tmp_path):
    image = IMAGE.copy()
    image.putalpha(0)
    assert (read_picture(save(image, tmp_path / "a.png")).pixels == 255).all()


@pytest.mark.filterwarnings("ignore:(Metadata Warning|Truncated File Read)")
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "gif", "tif", "bmp"])
def test_damaged_bytes_never_raise_anything_else(extension, tmp_path):
    content = save(IMAGE, tmp_path / f"whole.{extension}").read_bytes()
    random = np.random.default_rng(1)
    path = tmp_path / f"a.{extension}"
    reasons = set()
    for _ in range(60):
        damaged = bytearray(content[: random.integers(8, len(content) + 1)])
        for at in random.integers(8, max(9, min(len(damaged), 300)), 3):
            damaged[min(at, len(damaged) - 1)] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            assert read_picture(path).pixels.dtype == np.uint8
        except UnusablePicture as error:
            reasons.add(str(error))
    assert reasons
    assert not [reason for reason in reasons if "\n" in reason]


@pytest.mark.parametrize("extension", ["png", "tif", "jpg"])
def test_the_exif_orientation_is_applied(extension, tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the top of the picture is stored at the left
    stored = Image.new("RGB", (40, 30), (10, 10, 10))
    stored.paste((240, 240, 240), (0, 0, 20, 30))
    pixels = read_picture(save(stored, tmp_path / f"a.{extension}", exif=exif)).pixels
    assert pixels.shape == (40, 30, 3)
    assert pixels[:18].mean() > 230
    assert pixels[22:].mean() < 20


def test_large_pictures_are_reduced(tmp_path):
    path = save(Image.new("L", (3 * LONGEST_SIDE // 2, 60), 99), tmp_path / "a.png")
    picture = read_picture(path)
    assert picture.pixels.shape == (30, 3 * LONGEST_SIDE // 4, 3)
    assert picture.scale == 2
    assert (picture.pixels == 99).all()


MEASURED = """
import re, sys
from pathlib import Path
from voicestyle.photographs.reading import UnusablePicture, read_picture
# Of this program alone: getrusage would count what the process had before it became this program.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
before = peak()
try:
    print(read_picture(Path(sys.argv[1])).pixels.shape, end=";")
except UnusablePicture as error:
    print(error, end=";")
print(peak() - before)
"""


def read_elsewhere(path):
    """What reading gives, and by how many MiB it raised the peak memory of a new process."""
    command = [sys.executable, "-c", MEASURED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    outcome, memory = done.stdout.split(";")
    return outcome, int(memory)


@pytest.mark.long
def test_a_png_of_200_megapixels_is_rejected_by_its_header(tmp_path):
    path = save(Image.new("1", (20_000, 10_000)), tmp_path / "bomb.png")
    assert path.stat().st_size < 100_000
    outcome, memory = read_elsewhere(path)
    assert outcome == "a PNG must have at most 50 megapixels, received 20000×10000, which is 200"
    assert memory < 20


@pytest.mark.long
def test_a_jpeg_of_100_megapixels_is_decoded_smaller(tmp_path):
    path = save(Image.new("L", (20_000, 5_000), 99), tmp_path / "large.jpg")
    outcome, memory = read_elsewhere(path)
    assert outcome == "(625, 2500, 3)"
    assert memory < 150  # decoded whole it would take 100 MB as grey pixels and 400 as RGB


def test_a_jpeg_above_its_own_limit_is_rejected(tmp_path):
    content = bytearray(save(IMAGE, tmp_path / "a.jpg").read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = (20_000).to_bytes(2) * 2  # height and width
    path = tmp_path / "b.jpg"
    path.write_bytes(content)
    with pytest.raises(UnusablePicture, match="a JPEG must have at most 110 megapixels, received 20000×20000"):
        read_picture(path)
