import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from voicestyle.cli import main
from voicestyle.images import DIGITAL_SOURCE_TYPE, encode

FORMATS = ["png", "jpeg", "webp"]


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def run(*arguments):
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


@pytest.mark.parametrize("image_format", FORMATS)
def test_an_independent_reader_finds_the_mark(pixels, image_format):
    data = np.frombuffer(encode(pixels, image_format, {}), np.uint8)
    _, kinds, packets = cv2.imdecodeWithMetadata(data, cv2.IMREAD_COLOR)
    xmp = dict(zip(kinds, packets, strict=True))[cv2.IMAGE_METADATA_XMP]
    assert DIGITAL_SOURCE_TYPE.encode() in bytes(xmp)


@pytest.mark.parametrize("image_format", FORMATS)
def test_verify_finds_the_mark(tmp_path, pixels, image_format):
    path = tmp_path / "face"  # the contents decide, not the name
    path.write_bytes(encode(pixels, image_format, {}))
    result = run(path)
    assert result.exit_code == 0
    assert result.output == f"{path}: generated, {DIGITAL_SOURCE_TYPE}\n"
    assert json.loads(run("--json", path).output) == {
        "image": str(path),
        "generated": True,
        "digital_source_type": DIGITAL_SOURCE_TYPE,
    }


@pytest.mark.parametrize("image_format", FORMATS)
def test_an_image_saved_again_without_metadata_has_no_mark(tmp_path, pixels, image_format):
    marked, plain = tmp_path / "marked", tmp_path / "plain"
    marked.write_bytes(encode(pixels, image_format, {}))
    Image.fromarray(pixels).save(plain, image_format)
    result = run("--json", marked, plain)
    assert result.exit_code == 1
    assert [json.loads(line)["generated"] for line in result.output.splitlines()] == [True, False]


def test_the_source_type_of_a_camera_is_no_mark(tmp_path, pixels):
    path = tmp_path / "photo.jpg"
    camera = encode(pixels, "jpeg", {}).replace(b"trainedAlgorithmicMedia", b"digitalCapture#########")
    path.write_bytes(camera)
    assert run(path).exit_code == 1


@pytest.mark.parametrize("contents", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_one_line(tmp_path, contents):
    path = tmp_path / "face.png"
    path.write_bytes(contents)
    result = run(path)
    assert result.exit_code == 2
    assert result.output == f"voicestyle: an image must be a whole PNG, JPEG or WebP file, got {path}\n"
