"""The limits of the service and how its networks are computed: the section `handler` of model_config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from voicestyle.devices import DEVICES
from voicestyle.engine.capacity import CPU_CAPACITY, SIZES
from voicestyle.manifest import Caps, invalid_value
from voicestyle.options import nearest
from voicestyle.precision import AUTO, CHOICES

SECTION: Final = "handler"
REJECTED: Final = 8  # requests beyond the batch and the queue that a call can reject with an error of its own
# Whether a call of a network takes all requests; None is the engine's choice for the device.
BATCHING: Final = {AUTO: None, "batched": True, "sequential": False}

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Auto = Literal["auto"]


class ServiceConfig(Struct, frozen=True):
    """The service's own limits; a bundle may allow less, never more.

    live_requests: slots in the batch; `auto` is measured where a step takes all requests at once, as on a GPU, and 8
    elsewhere. queue: how many more requests may wait for a slot; further ones are rejected; `auto` is twice the slots.
    audio_bytes, audio_seconds: the longest audio. steps, size (pixels), previews: the most that a request may ask for.
    iteration_seconds: how long a call of the handler should take; a new request waits so long for its first step.
    device: one of `voicestyle.devices.DEVICES`. dtype: of the generator and the face encoder, one of
    `voicestyle.precision.CHOICES`. batching: how the requests go through the networks, one of `BATCHING`. graphs:
    whether a GPU's step is captured as CUDA graphs; `auto` captures, and restarts without graphs if that fails.
    """

    live_requests: Positive | Auto = AUTO
    queue: NotNegative | Auto = AUTO
    audio_bytes: Positive = 12 * 2**20
    audio_seconds: Seconds = 120.0
    steps: Positive = 500
    size: Positive = 1024
    previews: NotNegative = 16
    iteration_seconds: Seconds = 0.15
    device: str = AUTO
    dtype: str = AUTO
    batching: str = AUTO
    graphs: bool | Auto = AUTO

    def __post_init__(self) -> None:
        choices = {"device": DEVICES, "dtype": CHOICES, "batching": tuple(BATCHING)}
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")

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
    def batched(self) -> bool | None:
        """Whether a call of a network takes all requests at once; None is the engine's choice for the device."""
        return BATCHING[self.batching]

    def queue_of(self, capacity: int) -> int:
        """How many requests may wait for one of `capacity` slots."""
        return 2 * capacity if isinstance(self.queue, str) else self.queue

    @property
    def most_live(self) -> int:
        """The most slots that the batch may have, whichever the device turns out to be."""
        if not isinstance(self.live_requests, str):
            return self.live_requests
        return CPU_CAPACITY if self.device == "cpu" or self.batching == "sequential" else SIZES[-1]

    @property
    def most_admitted(self) -> int:
        """The most requests in the batch and the queue."""
        return self.most_live + self.queue_of(self.most_live)

    @property
    def batch_size(self) -> int:
        """TorchServe's batchSize, the most requests that a call of the handler gets."""
        return self.most_admitted + REJECTED

    @property
    def caps(self) -> Caps:
        """The limits that the pipeline applies to a request."""
        return Caps(steps=self.steps, audio_seconds=self.audio_seconds, size=self.size, previews=self.previews)
