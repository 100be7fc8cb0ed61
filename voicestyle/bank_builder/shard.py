"""The file of a shard: what became of its photographs and videos. The same shard gives the same bytes.

A file is the SHA-256 of its body and the body in MessagePack, so that a damaged file is noticed.
"""

import hashlib
import io

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from PIL import Image

from voicestyle.bank_builder.errors import BankError

DIGEST_BYTES = 32
THUMBNAIL_SIZE = 128  # pixels
THUMBNAIL_QUALITY = 80


class InvertedPhotograph(Struct, frozen=True):
    """latent: float32, little-endian, of `shape`. image: WebP thumbnail of the generator's image.

    losses: value at each step by name. psnr in dB; identity: cosine of photograph and inversion.
    """

    latent: bytes
    shape: tuple[int, ...]
    image: bytes
    losses: dict[str, list[float]]
    psnr: float
    identity: float

    def array(self) -> NDArray[np.float32]:
        """The latent as an array."""
        return np.frombuffer(self.latent, dtype="<f4").reshape(self.shape).astype(np.float32)


class PhotographResult(Struct):
    """What became of a photograph.

    figures: what its gates looked at. rejected: the reason, or None. aligned: WebP thumbnail of the aligned face, if
    there is one. inverted: None if it was rejected, or if videos choose and none chose it. chosen_by: number of videos.
    """

    key: str
    figures: dict[str, float | int | None]
    rejected: str | None
    aligned: bytes | None = None
    inverted: InvertedPhotograph | None = None
    chosen_by: int = 0


class VideoResult(Struct, frozen=True):
    """The key of the photograph that a video chose, and their similarity; or why it has none."""

    key: str
    photograph: str | None
    similarity: float | None
    rejected: str | None


class Shard(Struct):
    """The results of one shard of the plan with the sha256 `plan`, in the plan's order."""

    plan: str
    number: int
    photographs: list[PhotographResult]
    videos: list[VideoResult]


def encode(shard: Shard) -> bytes:
    """The content of a shard's file."""
    body = msgspec.msgpack.encode(shard, order="deterministic")
    return hashlib.sha256(body).digest() + body


def decode(content: bytes, name: str) -> Shard:
    """Read the content of the file `name`. Raises BankError for a damaged file."""
    digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise BankError(f"{name} must have the sha256 that it begins with, got a damaged file: remove it and run again")
    try:
        return msgspec.msgpack.decode(body, type=Shard)
    except msgspec.DecodeError as error:
        raise BankError(f"{name} must be a shard of this version, remove it and run again: {error}") from error


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """A small WebP file of pixels [H, W, 3]."""
    image = Image.fromarray(pixels).resize((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=THUMBNAIL_QUALITY, method=4)
    return buffer.getvalue()
