"""The canary: a real request of one step, sent to find out whether faces can be made."""

from __future__ import annotations

import http.client
import json
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from voicestyle.errors import ServerError
from voicestyle.manifest import MANIFEST
from voicestyle.serving.canary_voice import canary_wav

ANSWER_SECONDS: Final = 60.0
SPEECH_MARGIN: Final = 0.5  # s more than the bundle asks for; the detector loses a frame or two


class Outcome(Enum):
    """What became of a canary."""

    ANSWERED = "answered"  # a face came back
    FULL = "full"  # the handler refused it: it turns, and all places are taken
    BUSY = "busy"  # no place in time, but the others' steps went on
    DRAINING = "draining"  # the handler takes nobody in any more
    FAILED = "failed"

    @property
    def good(self) -> bool:
        """Whether it shows that faces are being made."""
        return self in (Outcome.ANSWERED, Outcome.FULL, Outcome.BUSY)


@dataclass(frozen=True)
class Canary:
    """A request of one step at the bundle's smallest size.

    url: where the model takes voices. body: a WAV file with enough speech. size: pixels a side. steps_taken: counts
    the steps of all requests, to tell a service with much to do from one that stands still. seconds: how long an
    answer may take.
    """

    url: str
    body: bytes
    size: int
    steps_taken: Callable[[], float]
    seconds: float = ANSWER_SECONDS
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    @classmethod
    def of(cls, archive: Path, url: str, steps_taken: Callable[[], float]) -> Canary:
        """The canary that suits an archive's bundle. Raises ServerError where it holds no bundle."""
        try:
            with zipfile.ZipFile(archive) as opened:
                manifest = json.loads(opened.read(f"bundle/{MANIFEST}"))
            speech = float(manifest["limits"]["min_speech_seconds"])
            return cls(url, canary_wav(speech + SPEECH_MARGIN), min(manifest["sizes"]), steps_taken)
        except (OSError, LookupError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ServerError(f"{archive} is no archive of a bundle: {error!r}") from error

    def send(self) -> tuple[Outcome, str]:
        """Send it, and return what became of it and a sentence about that."""
        steps, began = self.steps_taken(), self.clock()
        try:
            status, content_type, body = self._post()
        except (OSError, http.client.HTTPException) as error:
            outcome, words = Outcome.FAILED, f"no answer within {self.seconds:.0f} s: {type(error).__name__}"
        else:
            outcome, words = _judge(status, content_type, body)
            if outcome is not Outcome.FAILED or _ours(body):
                return outcome, f"{words} after {self.clock() - began:.1f} s"
        # Nothing of ours came back. In a long queue that is no fault: what counts is whether the queue moves.
        if (taken := self.steps_taken() - steps) > 0:
            return Outcome.BUSY, f"{words}, but {taken:.0f} steps were taken meanwhile"
        return outcome, words

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
            answer = connection.getresponse()
            return answer.status, answer.headers.get_content_type(), answer.read()
        finally:
            connection.close()


def _judge(status: int, content_type: str, body: bytes) -> tuple[Outcome, str]:
    if status == http.HTTPStatus.OK and content_type.startswith("image/") and body:
        return Outcome.ANSWERED, "a face"
    code = _ours(body).get("code")
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE and code in ("overloaded", "draining"):
        return (Outcome.FULL if code == "overloaded" else Outcome.DRAINING), f"503 {code}"
    return Outcome.FAILED, f"{status} {code or 'without a code of ours'}"


def _ours(body: bytes) -> Mapping[str, Any]:
    """The error of an answer that the handler wrote; empty for any other."""
    try:
        error = json.loads(body)["error"]
    except (LookupError, TypeError, ValueError):
        return {}
    return error if isinstance(error, dict) else {}
