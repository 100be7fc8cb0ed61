"""What the client sends and returns: a request, the face, and the events of a stream."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from voicestyle.client.errors import APIError
from voicestyle.options import OPTIONS, OptionValues

AUDIO: Final = "audio"  # name of the gRPC input that holds the audio file
_WORD: Final = re.compile(r"[A-Za-z0-9_-]+")  # safe in an HTTP header


@dataclass(frozen=True)
class Request:
    """A voice and its options. Only the options' types are checked here; the service checks their values.

    audio: the bytes of an audio file. options: their values by name; None leaves the choice to the service.
    Raises TypeError for an unknown option or a value of the wrong type, ValueError for text with other characters than
    letters, digits, `_` and `-`.
    """

    audio: bytes = field(repr=False)
    options: Mapping[str, object]

    def __post_init__(self) -> None:
        for name, value in self.options.items():
            if name not in OptionValues.__annotations__:
                raise TypeError(f"unknown option {name!r}; the options are {', '.join(OptionValues.__annotations__)}")
            kind = OPTIONS[name].type
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise TypeError(f"{name} must be {kind.__name__} or None, got {type(value).__name__}")
            if isinstance(value, str) and not _WORD.fullmatch(value):
                raise ValueError(f"{name} must be a word such as {OPTIONS[name].choices[0]}, got {value!r}")

    @classmethod
    def read(cls, audio: bytes | str | Path, options: Mapping[str, object]) -> Request:
        """The request for the bytes of an audio file, or for its path. Raises OSError if it cannot be read."""
        if not isinstance(audio, bytes | str | Path):
            raise TypeError(f"audio must be the bytes of a file, or its path (str or Path), got {type(audio).__name__}")
        return cls(audio if isinstance(audio, bytes) else Path(audio).read_bytes(), options)

    def as_text(self) -> dict[str, str]:
        """The options that are not None, as text."""
        return {name: str(value) for name, value in self.options.items() if value is not None}

    def headers(self) -> dict[str, str]:
        """The headers of an HTTP request whose body is the audio and whose response is JSON."""
        options = {f"X-VoiceStyle-{name.capitalize()}": text for name, text in self.as_text().items()}
        return {"Content-Type": "application/octet-stream", "X-VoiceStyle-Output": "json"} | options

    def inputs(self) -> dict[str, bytes]:
        """The inputs of a gRPC request."""
        return {AUDIO: self.audio} | {name: text.encode() for name, text in self.as_text().items()}


@dataclass(frozen=True)
class Started:
    """The request has been admitted; the fields are its options with all defaults filled in."""

    request_id: str
    model: str
    steps: int
    preset: str
    seed: int
    size: int
    format: str


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` are done; `similarity` is cos(voice, face), -1 to 1."""

    step: int
    steps: int
    similarity: float


@dataclass(frozen=True)
class Preview:
    """The face after `step` of `steps`: `image` is a small image file in `format`, `size` pixels wide and high."""

    step: int
    steps: int
    similarity: float
    format: str
    size: int
    image: bytes = field(repr=False)


@dataclass(frozen=True)
class Retrying:
    """An attempt ended in `error`; attempt number `attempt` (the first is 1) begins in `delay` seconds.

    The request starts again from step 0: progress and previews are sent again, and they are the same.
    """

    attempt: int
    delay: float
    error: APIError


@dataclass(frozen=True)
class Face:
    """The face that a voice suggests, and how it was made.

    `image` is an image file in `format`, `size` pixels wide and high. `similarity` and `first_similarity` are
    cos(voice, face) after the last and the first step, -1 to 1; `trace` has one value per step. Without steps, all
    three are the similarity of the face. `batch` is the largest number of requests that shared a step, or without steps
    the rendering; `dtype` is that of the networks' convolutions, float32 or bfloat16; `timings` are the seconds of each
    stage. `previews` is filled by `generate` only.
    """

    request_id: str
    model: str
    seed: int
    steps: int
    preset: str
    size: int
    format: str
    image: bytes = field(repr=False)
    similarity: float
    first_similarity: float
    trace: tuple[float, ...] = field(repr=False)
    batch: int
    dtype: str
    prototypes: tuple[int, ...]
    audio_seconds: float
    speech_seconds: float
    timings: Mapping[str, float] = field(repr=False)
    digital_source_type: str
    previews: tuple[Preview, ...] = field(default=(), repr=False)


Event: TypeAlias = Started | Progress | Preview | Retrying | Face
