"""The errors that voicestyle raises on purpose; anything else is a bug.

`CallerError` is a mistake of whoever sent a request: a stable code, a sentence that says the rule and
what was received, and an HTTP status. The others are mistakes of whoever built or installed something.
"""

from cmpc2.errors import CallerError, CheckpointError

__all__ = ["ArchiveError", "BundleError", "CallerError", "CheckpointError", "ServerError"]


class BundleError(ValueError):
    """A bundle folder that is incomplete, altered or inconsistent; the message names file and rule."""


class ArchiveError(RuntimeError):
    """A TorchServe archive that could not be built; the message names the step."""


class ServerError(RuntimeError):
    """A TorchServe that did not start or stopped by itself; the message ends with its last log lines."""
