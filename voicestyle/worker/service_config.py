"""The limits of the service and the dtype of its networks: the section `handler` of model_config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from voicestyle.manifest import Caps, invalid_value
from voicestyle.options import nearest
from voicestyle.precision import AUTO, CHOICES

SECTION: Final = "handler"

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class ServiceConfig(Struct, frozen=True):
    """The service's own limits; a bundle may allow less, never more.

    live_requests: slots in the batch. queue: how many more requests may wait for a slot; further ones are rejected.
    audio_bytes, audio_seconds: the longest audio. steps, size (pixels), previews: the most that a request may ask for.
    iteration_seconds: how long a call of the handler should take; a new request waits so long for its first step.
    dtype: of the generator and the face encoder, one of `voicestyle.precision.CHOICES`.
    """

    live_requests: Positive = 8
    queue: NotNegative = 16
    audio_bytes: Positive = 12 * 2**20
    audio_seconds: Seconds = 120.0
    steps: Positive = 500
    size: Positive = 1024
    previews: NotNegative = 16
    iteration_seconds: Seconds = 0.15
    dtype: str = AUTO

    def __post_init__(self) -> None:
        if self.dtype not in CHOICES:
            raise ValueError(f"dtype must be one of {', '.join(CHOICES)}, got {self.dtype!r}")

    @classmethod
    def parse(cls, section: Mapping[str, Any] | None) -> ServiceConfig:
        """Read a section. Raises ValueError for an unknown key (naming the nearest one) or an invalid value."""
        if not isinstance(section, Mapping | None):
            raise ValueError(f"{SECTION}: must be a mapping of names to values, got {section!r}")
        for name in section or {}:
            if name not in cls.__struct_fields__:
                known = nearest(str(name), cls.__struct_fields__)
                raise ValueError(f"{SECTION}: unknown key {name!r}; the nearest known one is {known!r}")
        try:
            return msgspec.convert(section or {}, cls)
        except msgspec.ValidationError as error:
            raise ValueError(f"{SECTION}: {invalid_value(error, section or {})}") from None

    @property
    def caps(self) -> Caps:
        """The limits that the pipeline applies to a request."""
        return Caps(steps=self.steps, audio_seconds=self.audio_seconds, size=self.size, previews=self.previews)
