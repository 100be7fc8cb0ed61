"""The errors that voicestyle raises on purpose; anything else is a bug.

`InputError` is a client error with a code of `voicestyle.error_codes`. The others concern the operator:
bundles, archives, checkpoints and servers.
"""

from cmpc2.errors import CheckpointError
from voicestyle.error_codes import InputError

__all__ = ["ArchiveError", "BundleError", "CaptureError", "CheckpointError", "InputError", "ServerError"]


class BundleError(ValueError):
    """A bundle folder that is incomplete, altered or inconsistent; the message names the file and the rule."""


class ArchiveError(RuntimeError):
    """A TorchServe archive that could not be built; the message names the step."""


class ServerError(RuntimeError):
    """A TorchServe that did not start or stopped unexpectedly; the message ends with its last log lines."""


class CaptureError(RuntimeError):
    """A step could not be captured as a CUDA graph. The device may be unusable now: the process has to end."""
