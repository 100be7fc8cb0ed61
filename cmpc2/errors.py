"""The two ways in which what we were given can be wrong."""

from __future__ import annotations

from typing import Final, Literal

Code = Literal["not_audio", "too_large", "too_long", "no_speech", "too_short", "bad_option"]

STATUS: Final[dict[Code, int]] = {
    "bad_option": 400,
    "too_large": 413,
    "too_long": 413,
    "not_audio": 415,
    "no_speech": 422,
    "too_short": 422,
}


class CallerError(ValueError):
    """A caller's mistake: safe to tell them, never logged as a fault of ours.

    `code` is stable and machine-readable, `message` states the rule and what was received, and `status` is
    the HTTP status, that of the code unless given.
    """

    def __init__(self, code: Code, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message
        self.status = STATUS[code] if status is None else status

    def __reduce__(self) -> tuple[type[CallerError], tuple[Code, str, int]]:
        # Unpickling calls the class with `args`, which hold the message alone; process pools rely on it.
        return type(self), (self.code, self.message, self.status)


class CheckpointError(ValueError):
    """A file of weights or prototypes that is unreadable or does not fit; the message names file and keys."""
