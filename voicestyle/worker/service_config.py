"""What the service allows and computes in, from the `handler` section of model_config.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from voicestyle.manifest import Caps
from voicestyle.precision import AUTO, CHOICES

SECTION: Final = "handler"


@dataclass(frozen=True)
class ServiceConfig:
    """The service's own limits; a bundle may allow less, never more.

    live_requests share the running batch, queue more wait for a place, and whoever comes then is refused.
    audio_bytes and audio_seconds bound a voice, steps, size (pixels a side) and previews what may be asked for.
    iteration_seconds is how long a call of the handler should take: so long a newcomer waits for its first step.
    dtype is what the face's networks compute in: one of `voicestyle.precision.CHOICES`.

    Raises ValueError for a value out of its range.
    """

    live_requests: int = 8
    queue: int = 16
    audio_bytes: int = 12 * 2**20
    audio_seconds: float = 120.0
    steps: int = 500
    size: int = 1024
    previews: int = 16
    iteration_seconds: float = 0.15
    dtype: str = AUTO

    def __post_init__(self) -> None:
        if self.dtype not in CHOICES:
            raise ValueError(f"{SECTION}: dtype must be one of {', '.join(CHOICES)}, got {self.dtype!r}")
        for field in fields(self):
            if field.name == "dtype":
                continue
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{SECTION}: {field.name} must be a number, got {value!r}")
            low = 0 if field.name in ("queue", "previews") else 1
            if field.name not in ("audio_seconds", "iteration_seconds") and (value != int(value) or value < low):
                raise ValueError(f"{SECTION}: {field.name} must be a whole number, {low} at least, got {value}")
            if value < 0 or (value == 0 and low):
                raise ValueError(f"{SECTION}: {field.name} must be above 0, got {value}")

    @classmethod
    def parse(cls, section: Mapping[str, float | str] | None) -> ServiceConfig:
        """The limits of a section. Raises ValueError for an unknown key (naming the nearest) or a bad value."""
        section = section or {}
        names = [field.name for field in fields(cls)]
        for name in section:
            if name not in names:
                nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0)[0]
                raise ValueError(f"{SECTION}: unknown key {name!r}; the nearest known one is {nearest!r}")
        return cls(**section)  # type: ignore[arg-type]

    @property
    def caps(self) -> Caps:
        """What the pipeline has to hold a request to."""
        return Caps(steps=self.steps, audio_seconds=self.audio_seconds, size=self.size, previews=self.previews)
