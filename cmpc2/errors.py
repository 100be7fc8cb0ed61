"""The errors that this package raises for what it was given."""

from __future__ import annotations

from typing import Literal

AudioErrorCode = Literal["not_audio", "too_long", "no_speech"]


class AudioError(ValueError):
    """A recording that cannot be used. `code` is machine-readable; `message` states the rule and what was received."""

    def __init__(self, code: AudioErrorCode, message: str) -> None:
        super().__init__(code, message)  # all arguments, so that pickling works
        self.code: AudioErrorCode = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class CheckpointError(ValueError):
    """A file of weights or prototypes that is unreadable or does not fit; the message names file and keys."""
