"""Errors that this package raises for invalid recordings and files."""

from __future__ import annotations

from typing import Literal

AudioErrorCode = Literal["not_audio", "too_long", "no_speech"]


class AudioError(ValueError):
    """An unusable recording. `code` is machine-readable; `message` states the rule and what was received."""

    def __init__(self, code: AudioErrorCode, message: str) -> None:
        super().__init__(code, message)  # pickling needs all arguments
        self.code: AudioErrorCode = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class CheckpointError(ValueError):
    """An unreadable or unsuitable file of weights or prototypes; the message names the file and the keys."""
