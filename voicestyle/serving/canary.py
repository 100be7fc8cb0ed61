"""The canary: a real request of one step, which shows whether the service can make faces."""

from __future__ import annotations

import http.client
import json
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from voicestyle.errors import BundleError, ServerError
from voicestyle.manifest import MANIFEST, Manifest
from voicestyle.serving.canary_voice import canary_wav

RESPONSE_SECONDS: Final = 60.0
SPEECH_MARGIN: Final = 0.5  # s more speech than the bundle requires; the detector misses a frame or two


class Outcome(Enum):
    """How a canary ended; the values are labels of the metric `voicestyle_canaries_total`."""

    ANSWERED = "answered"  # a face came back
    FULL = "full"  # the handler rejected it because the queue is full: the handler runs
    BUSY = "busy"  # no face in time, but steps or faces of other requests were made meanwhile
    DRAINING = "draining"  # the handler rejected it because the service is shutting down
    FAILED = "failed"

    @property
    def successful(self) -> bool:
        """Whether it shows that the service makes faces."""
        return self in (Outcome.ANSWERED, Outcome.FULL, Outcome.BUSY)


class CanaryResult(NamedTuple):
    """The outcome of one canary, and a message for the log and for `/ready`."""

    outcome: Outcome
    message: str


@dataclass(frozen=True)
class Canary:
    """A request of one step at the bundle's smallest size.

    url: the model's prediction URL. body: a WAV file with enough speech. size: pixels a side. progress: returns the
    number of steps of all requests so far and of faces without steps; it tells a busy service from one that hangs.
    seconds: timeout of the request.
    """

    url: str
    body: bytes
    size: int
    progress: Callable[[], float]
    seconds: float = RESPONSE_SECONDS
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    @classmethod
    def of(cls, archive: Path, url: str, progress: Callable[[], float]) -> Canary:
        """The canary for an archive's bundle. Raises ServerError if the archive holds no bundle."""
        try:
            with zipfile.ZipFile(archive) as opened:
                manifest = Manifest.parse(opened.read(f"bundle/{MANIFEST}"), f"{archive}: {MANIFEST}")
        except (OSError, KeyError, BundleError, zipfile.BadZipFile) as error:
            raise ServerError(f"{archive} is no archive of a bundle: {error!r}") from error
        voice = canary_wav(manifest.limits.min_speech_seconds + SPEECH_MARGIN)
        return cls(url, voice, min(manifest.sizes), progress)

    def send(self) -> CanaryResult:
        """Send it and wait for the response, at most `seconds`."""
        before, began = self.progress(), self.clock()
        try:
            status, content_type, body = self._post()
        except (OSError, http.client.HTTPException) as error:
            passed = self.clock() - began
            result = CanaryResult(Outcome.FAILED, f"no response after {passed:.1f} s: {type(error).__name__}")
        else:
            result = _classify(status, content_type, body)
            if result.outcome is not Outcome.FAILED or _error(body):
                return CanaryResult(result.outcome, f"{result.message} after {self.clock() - began:.1f} s")
        # No response of the handler. With a long queue that is no fault, as long as the queue advances.
        if (made := self.progress() - before) > 0:
            message = f"{result.message}, but {made:.0f} steps or instant faces were made meanwhile"
            return CanaryResult(Outcome.BUSY, message)
        return result

    def _post(self) -> tuple[int, str, bytes]:
        address = urlsplit(self.url)
        assert address.hostname is not None
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=self.seconds)
        headers = {
            "Content-Type": "audio/wav",
            "X-VoiceStyle-Steps": "1",
            "X-VoiceStyle-Size": str(self.size),
        }
        try:
            connection.request("POST", address.path, self.body, headers)
            response = connection.getresponse()
            return response.status, response.headers.get_content_type(), response.read()
        finally:
            connection.close()


def _classify(status: int, content_type: str, body: bytes) -> CanaryResult:
    if status == http.HTTPStatus.OK and content_type.startswith("image/") and body:
        return CanaryResult(Outcome.ANSWERED, "a face")
    code = _error(body).get("code")
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE and code in ("overloaded", "draining"):
        return CanaryResult(Outcome.FULL if code == "overloaded" else Outcome.DRAINING, f"503 {code}")
    return CanaryResult(Outcome.FAILED, f"{status} {code or 'without an error code of the handler'}")


def _error(body: bytes) -> Mapping[str, Any]:
    """The handler's JSON error; empty for any other body, such as TorchServe's own errors."""
    try:
        error = json.loads(body)["error"]
    except (LookupError, TypeError, ValueError):
        return {}
    return error if isinstance(error, dict) else {}
