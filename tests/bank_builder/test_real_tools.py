"""Builds with the real judge and networks: bad files are lines of the report, and everything fits together."""

import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from tests.support.fake_bank_tools import FakeInverter
from voicestyle.bank_builder import BankError, BankOptions, build_bank
from voicestyle.bank_builder.executors import Toolbox
from voicestyle.bank_builder.frontal import FrontalChooser
from voicestyle.bank_builder.networks import make_toolbox
from voicestyle.bank_builder.shard_task import Tools
from voicestyle.bundle import sha256
from voicestyle.errors import BundleError, CheckpointError
from voicestyle.face_networks.clip import ClipConfig, ClipImageEncoder
from voicestyle.photographs import PhotographJudge

CACHE = Path(__file__).parents[2] / ".cache" / "face_networks"


def write_huge_png(path, width, height):
    """A black PNG that is small as a file, without holding its pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer, row = zlib.compressobj(1), bytes(1 + 3 * width)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    face = data.astronaut()
    Image.fromarray(face).save(folder / "face.png")
    Image.fromarray(data.coffee()).save(folder / "no-face.png")
    Image.fromarray(np.hstack([face, face])).save(folder / "two-faces.jpg", quality=95)
    Image.fromarray(face).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(face[..., 0].astype(np.uint16) * 257).save(folder / "16-bit.png")
    Image.fromarray(face).save(folder / "animated.gif", save_all=True, append_images=[Image.fromarray(255 - face)])
    whole = (folder / "two-faces.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    write_huge_png(folder / "huge.png", 20_000, 10_000)
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "circle").symlink_to(folder)
    return folder


REASONS = {
    "16-bit.png": "8 bits a channel, received 16",
    "animated.gif": "one still image, received an animated GIF",
    "cmyk.jpg": "received CMYK",
    "huge.png": "at most 50 megapixels, received 20000×10000",
    "loop.jpg": "symbolic links",
    "no-face.png": "no face found",
    "truncated.jpg": "must be an intact image",
    "two-faces.jpg": "faces found, must be 1",
}


def peak_memory():
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


@pytest.mark.long
def test_each_bad_file_is_a_line_and_the_build_goes_on_in_bounded_memory(photographs, tmp_path, caplog):
    judge = PhotographJudge()
    judge(photographs / "face.png")  # loads its models
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = peak_memory()
    toolbox = Toolbox(lambda files: Tools(judge, FakeInverter()), {})
    built = build_bank(BankOptions((photographs,), tmp_path), toolbox=toolbox)
    assert peak_memory() - before < 300 * 2**20  # the pixels of the large PNG alone are 600 MB
    assert (built.description.photographs.kept, built.description.photographs.total) == (1, 1 + len(REASONS))
    lines = [record.getMessage() for record in caplog.records]
    rows = re.search(r'id="rows">(.*?)</script>', built.report.read_text(encoding="utf-8"), re.DOTALL)[1]
    reported = {row["key"]: row["reason"] for row in json.loads(rows)}
    for name, reason in REASONS.items():
        (line,) = (line for line in lines if line.startswith(repr(name)))
        assert reason in line
        assert "\n" not in line
        assert line == f"{name!r}: {reported[name]}"


@pytest.fixture(scope="module")
def one_face(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("Ann") / "Ann"
    folder.mkdir()
    (folder / "face.png").write_bytes((photographs / "face.png").read_bytes())
    return folder.parent


@pytest.fixture
def options(one_face, demo_bundle):
    def make(folder, **changes):
        return BankOptions((one_face,), folder, bundle=demo_bundle, cache=CACHE, steps=2, **changes)

    return make


@pytest.mark.long
def test_a_photograph_becomes_a_latent_on_the_demo_generator(options, one_face, tmp_path):
    built = build_bank(options(tmp_path / "bank"))
    content = torch.load(built.latents, weights_only=True)
    assert content["videos"] == ["Ann/face.png"]
    assert content["latents"].shape == (1, 512)
    assert "dlib ResNet (face-api" in built.description.loss
    settings = built.description.settings
    assert settings["sha256 of generator.pt"] == sha256(options(tmp_path).bundle / "generator.pt")
    assert any(name.startswith("sha256 of cache/face-api") for name in settings)

    # With videos, the same photograph is chosen by the same network, its frames being aligned first.
    frames = tmp_path / "frames" / "Ann" / "1.6"
    for video in ("v1", "v2"):
        (frames / video).mkdir(parents=True)
        Image.fromarray(data.astronaut()[:400, :400] // 2).save(frames / video / "1.jpg")
    Image.fromarray(data.coffee()).save(frames / "v2" / "1.jpg")
    (tmp_path / "training.csv").write_text("VGGFace1 ID,video_id\nAnn,v1\nAnn,v2\n")
    videos = build_bank(options(tmp_path / "videos", csv=tmp_path / "training.csv", frames=tmp_path / "frames"))
    replaced = torch.load(videos.latents, weights_only=True)
    assert replaced["videos"] == ["Ann/1.6/v1"]
    assert torch.equal(replaced["latents"], content["latents"])
    assert videos.description.videos.rejected == {"a frame of the video must be readable, none is": 1}

    # CLIP takes frames as they are, also without a face.
    torch.manual_seed(0)
    tower = ClipImageEncoder(ClipConfig(image_size=32, patch=16, width=64, layers=1, embedding_dim=8))
    weights = {f"visual.{name}": torch.randn(value.shape) for name, value in tower.state_dict().items()}
    torch.save(weights, tmp_path / "clip.pt")
    files = {"csv": tmp_path / "training.csv", "frames": tmp_path / "frames", "clip": tmp_path / "clip.pt"}
    chosen = build_bank(options(tmp_path / "clip", **files))
    assert chosen.description.videos.kept == 2
    assert str(chosen.description.settings["replacement"]).startswith("CLIP ViT")


def test_an_altered_generator_is_an_error(options, demo_bundle, tmp_path):
    altered = tmp_path / "bundle"
    altered.mkdir()
    (altered / "bundle.json").write_bytes((demo_bundle / "bundle.json").read_bytes())
    with pytest.raises(BundleError, match="must have the sha256 in the bundle's manifest"):
        make_toolbox(BankOptions((tmp_path,), tmp_path, bundle=altered))


def test_a_file_that_is_no_stylegan2_is_an_error(tmp_path):
    torch.save({"a": 1}, tmp_path / "stylegan.pt")
    options = BankOptions((tmp_path,), tmp_path, stylegan=tmp_path / "stylegan.pt", cache=CACHE, batch=1)
    with pytest.raises(CheckpointError, match="g_ema"):
        make_toolbox(options).open()


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    toolbox = Toolbox(lambda files: Tools(PhotographJudge(), FakeInverter()), {})
    with pytest.raises(BankError, match=r"pip install 'voicestyle\[ray\]'"):
        build_bank(BankOptions((tmp_path,), tmp_path / "bank", ray="local"), toolbox=toolbox)


class Colour:
    """A network whose feature is the mean colour."""

    name, embedding_dim, needs_alignment = "colour", 3, False

    def prepare(self, pixels):
        return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 255

    def parameters(self):
        return iter([torch.zeros(1)])

    def __call__(self, images):
        return images.mean(dim=(2, 3))


def test_the_chooser_takes_the_photograph_most_similar_to_any_frame():
    def plain(colour):
        return np.full((8, 8, 3), colour, np.uint8)

    frames = {Path("1"): plain((10, 10, 10)), Path("2"): plain((200, 5, 5)), Path("3"): None}
    chooser = FrontalChooser(Colour(), frames.get, "cpu")
    photographs = chooser.embed([plain((0, 0, 250))] * 9 + [plain((250, 0, 0)), plain((240, 0, 0))])
    assert photographs.shape == (11, 3)
    row, similarity = chooser.choose(photographs, [Path("3"), Path("2")])
    assert row == 9  # of equal ones the first
    assert similarity == pytest.approx(200 / np.hypot(200, np.hypot(5, 5)), abs=1e-6)
    assert chooser.choose(photographs, [Path("3")]) is None
    assert chooser.choose(photographs, []) is None
