"""What comes out: a face, its pixels before they are a file, and small ones on the way."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from voicestyle.images import encode


@dataclass(frozen=True)
class Face:
    """The answer to a request.

    image: the bytes of a file in `format`. trace: cos(voice, face) at each step. prototypes: indices, nearest first.
    largest_batch: most requests that shared one of its steps. timings: seconds per stage; `queue` is the wait for a
    place, `optimise` wall-clock time shared with the other requests of the batch.
    """

    image: bytes
    format: str
    trace: list[float]
    seed: int
    steps: int
    preset: str
    size: int
    prototypes: list[int]
    largest_batch: int
    audio_seconds: float
    speech_seconds: float
    timings: dict[str, float]

    @property
    def first_similarity(self) -> float:
        """cos(voice, face) of the first step."""
        return self.trace[0]

    @property
    def similarity(self) -> float:
        """cos(voice, face) of the last step."""
        return self.trace[-1]


@dataclass(frozen=True)
class Preview:
    """A small JPEG of a face on its way, and its pixels a side."""

    image: bytes
    size: int


@dataclass(frozen=True)
class Rendered:
    """A request's last pixels, uint8 [S, S, 3], on the CPU, and all of its face but the file."""

    pixels: NDArray[np.uint8]
    face: Face
    description: Mapping[str, str]

    def encoded(self) -> Face:
        """The face with its file. Needs nothing of the pipeline, so another thread may do it."""
        began = perf_counter()
        image = encode(self.pixels, self.face.format, self.description)
        return replace(self.face, image=image, timings=self.face.timings | {"encode": perf_counter() - began})
