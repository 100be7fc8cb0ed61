"""The result of a request: its pixels, its image file, and what is known about them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from voicestyle.images import encode
from voicestyle.options import Settings


@dataclass(frozen=True, kw_only=True)
class Result:
    """What is known about a face.

    trace: cos(voice, face) of each step, float in [-1, 1]; without steps, that of the face alone. prototypes: indices,
    nearest first. largest_batch: most requests that were running during one of its steps; without steps, requests that
    were rendered with it. dtype: of the networks' convolutions. timings: seconds per stage; `queue` is the wait for a
    slot, without steps that until its turn to be rendered, `optimise` is wall-clock time, which the other requests of
    the batch share.
    """

    settings: Settings
    trace: list[float]
    prototypes: list[int]
    largest_batch: int
    dtype: str
    audio_seconds: float
    speech_seconds: float
    timings: Mapping[str, float]

    @property
    def first_similarity(self) -> float:
        """cos(voice, face) of the first step; without steps, the same as `similarity`."""
        return self.trace[0]

    @property
    def similarity(self) -> float:
        """cos(voice, face) of the last step; without steps, of the face."""
        return self.trace[-1]


@dataclass(frozen=True, kw_only=True)
class Face(Result):
    """A finished face. image: the bytes of a file in the format of its settings."""

    image: bytes


@dataclass(frozen=True, kw_only=True)
class Rendered(Result):
    """A face that is not encoded yet. pixels: uint8 [S, S, 3], on the CPU. description: goes into the file."""

    pixels: NDArray[np.uint8]
    description: Mapping[str, str]

    def encode(self) -> Face:
        """Encode the image file. It needs nothing of the pipeline, so another thread may do it."""
        began = perf_counter()
        image = encode(self.pixels, self.settings.format, self.description)
        known = {field.name: getattr(self, field.name) for field in fields(Result)}
        known["timings"] = {**self.timings, "encode": perf_counter() - began}
        return Face(image=image, **known)


@dataclass(frozen=True)
class Preview:
    """A JPEG image of a face during the optimisation, and its width and height in pixels."""

    image: bytes
    size: int
