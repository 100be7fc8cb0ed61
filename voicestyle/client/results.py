"""What the service answers: a face, and the events on the way to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from voicestyle.client.errors import ClientError


@dataclass(frozen=True)
class Started:
    """The request has its place in the batch, with what it left open filled in."""

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
    """The face after `step` of `steps`: the bytes of a small picture, `size` pixels a side, in `format`."""

    step: int
    steps: int
    similarity: float
    format: str
    size: int
    image: bytes = field(repr=False)


@dataclass(frozen=True)
class Retrying:
    """An attempt ended in `error`; attempt number `attempt` (the first is 1) begins in `delay` seconds.

    All is made anew: what came before of progress and previews comes again, the same.
    """

    attempt: int
    delay: float
    error: ClientError


@dataclass(frozen=True)
class Face:
    """The face that a voice suggests, and how it came about.

    `image` holds the bytes of a file in `format`, `size` pixels a side. `similarity` and `first_similarity` are
    cos(voice, face) after the last and the first step, -1 to 1, and `trace` has all of them. `batch` is the most
    requests that shared a step, `timings` the seconds of each stage. `previews` is filled by `generate` alone.
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
    prototypes: tuple[int, ...]
    audio_seconds: float
    speech_seconds: float
    timings: Mapping[str, float] = field(repr=False)
    digital_source_type: str
    previews: tuple[Preview, ...] = field(default=(), repr=False)


Event: TypeAlias = Started | Progress | Preview | Retrying | Face
