"""Read one picture from an untrusted file, with a reason when it cannot be used.

Memory is bounded: the size is read from the header, and a picture of too many pixels is rejected before it is decoded.
Large JPEG files are decoded at a half, a quarter or an eighth of their size, as their format allows.
"""

import errno
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

# The files are not opened by `Image.open`: it would warn about, or reject, sizes by a limit that is global to the
# process. The first bytes of a file decide on its format, whatever its name.
SIGNATURES: tuple[tuple[bytes, type[Any]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"RIFF", WebPImageFile),
    (b"GIF8", GifImageFile),
    (b"II*\x00", TiffImageFile),
    (b"MM\x00*", TiffImageFile),
    (b"BM", BmpImageFile),
)
MAX_PIXELS = 50_000_000
MAX_JPEG_PIXELS = 110_000_000  # decoded at half the size, but a progressive file is held in memory as a whole
LONGEST_SIDE = 4096  # larger pictures are reduced; an aligned face has 256 pixels

# Modes of Pillow that have 8 bits a channel and a fixed relation to RGB.
MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"})
WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})

Pixels = NDArray[np.uint8]


class UnusablePicture(ValueError):  # noqa: N818  (it becomes a reason in a report, not an error)
    """A file that holds no picture that can be used; the message is the rule and what was received, in one line."""


@dataclass(frozen=True)
class Picture:
    """pixels: uint8 RGB [H, W, 3], upright. scale: pixels of the file per pixel of `pixels`, at least 1."""

    pixels: Pixels
    scale: float


def read_picture(path: Path) -> Picture:
    """Read a JPEG, PNG, WebP, GIF, TIFF or BMP file with one still image of 8 bits a channel.

    Grey and palette images are converted to RGB, transparent ones are laid on white, and the orientation in the EXIF
    data is applied. Colour profiles are ignored. Images above `LONGEST_SIDE` are reduced.

    Raises:
        UnusablePicture: the file cannot be read, is no such image, is truncated or has too many pixels.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnusablePicture("must be a file, received a folder, device or pipe")
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise UnusablePicture(_unreadable(error)) from error


def _unreadable(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "must be readable, received a loop of symbolic links"
    return f"must be readable: {error.strerror or error}"


def _read(file: IO[bytes]) -> Picture:
    start = file.read(32)
    if not start:
        raise UnusablePicture("must be an image, received an empty file")
    kind = next((kind for signature, kind in SIGNATURES if start.startswith(signature)), None)
    if kind is None or (kind is WebPImageFile and start[8:12] != b"WEBP"):
        raise UnusablePicture("must be a JPEG, PNG, WebP, GIF, TIFF or BMP image, received another kind of file")
    file.seek(0)
    try:
        image: Image.Image = kind(file)
        _check_header(image, start)
        return _decode(image)
    except UnusablePicture:
        raise
    except Exception as error:  # decoders raise errors of many types on damaged files
        text = " ".join(str(error).split()) or type(error).__name__
        raise UnusablePicture(f"must be an intact image, received a damaged or truncated one: {text}") from error


def _check_header(image: Image.Image, start: bytes) -> None:
    name = str(image.format)
    if getattr(image, "is_animated", False):
        kind = "a TIFF of several pages" if name == "TIFF" else f"an animated {name}"
        raise UnusablePicture(f"must be one still image, received {kind}")
    bits = _bits(image, start)
    if bits > 8:
        raise UnusablePicture(f"must have at most 8 bits a channel, received {bits}")
    if image.mode not in MODES:
        raise UnusablePicture(f"must be RGB, grey or palette, received {image.mode}")
    width, height = image.size
    limit = MAX_JPEG_PIXELS if name == "JPEG" else MAX_PIXELS
    if width * height > limit:
        raise UnusablePicture(
            f"a {name} must have at most {limit // 1_000_000} megapixels, received {width}×{height}, "
            f"which is {width * height / 1e6:.0f}"
        )


def _bits(image: Image.Image, start: bytes) -> int:
    """Bits a channel as stored: Pillow reduces the 16 bits of RGB files to 8 when it decodes them."""
    if image.mode.startswith(("I", "F")):
        return 16 if ";16" in image.mode else 32
    if isinstance(image, PngImageFile):
        return start[24]  # the first chunk is IHDR, at byte 8: length, type, width and height, then the depth
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(258, (1,)))  # BitsPerSample
    return 8


def _decode(image: Image.Image) -> Picture:
    longest = max(image.size)
    if longest > LONGEST_SIDE:
        # Only JPEG does anything here: it decodes at the smallest size that is not below the one asked for.
        ratio = LONGEST_SIDE / longest
        image.draft("RGB", (round(image.width * ratio), round(image.height * ratio)))
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(image, mask=image.getchannel("A"))
        image = opaque
    image = image if image.mode == "RGB" else image.convert("RGB")
    factor = -(-max(image.size) // LONGEST_SIDE)
    if factor > 1:
        image = image.reduce(factor)
    return Picture(np.array(image), max(1.0, longest / max(image.size)))
