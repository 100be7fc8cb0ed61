"""What goes back to a client: the picture, JSON, lines of a stream, or one JSON error of a fixed form."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from voicestyle.errors import InputError
from voicestyle.images import DIGITAL_SOURCE_TYPE

if TYPE_CHECKING:
    from voicestyle.engine import Progress
    from voicestyle.face import Face, Preview
    from voicestyle.options import Settings
    from voicestyle.worker.request_parser import Protocol

JSON: Final = "application/json"
LINES: Final = "application/x-ndjson"


@dataclass(frozen=True)
class Answer:
    """What one request gets in a call: status, body, content type and headers.

    verdict is TorchServe's stopping criterion: None for a plain reply, False for a chunk of a stream, True for the
    last one. A gRPC call takes True alone: None would end the worker under StreamPredictions, and False drops it.
    """

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    verdict: bool | None = None

    def over(self, protocol: Protocol) -> Answer:
        """The same as a whole answer over `protocol`."""
        return replace(self, verdict=True if protocol == "grpc" else None)


def picture(face: Face, model: str) -> Answer:
    """The image, with what is known about it in headers."""
    return Answer(
        status=200,
        body=face.image,
        content_type=f"image/{face.format}",
        headers={
            "X-VoiceStyle-Similarity": f"{face.similarity:.6f}",
            "X-VoiceStyle-First-Similarity": f"{face.first_similarity:.6f}",
            "X-VoiceStyle-Seed": str(face.seed),
            "X-VoiceStyle-Steps": str(face.steps),
            "X-VoiceStyle-Preset": face.preset,
            "X-VoiceStyle-Size": str(face.size),
            "X-VoiceStyle-Batch": str(face.largest_batch),
            "X-VoiceStyle-Model": model,
        },
    )


def document(face: Face, model: str, request_id: str, **more: object) -> Answer:
    """The image and all that is known about it, as JSON."""
    return Answer(200, _json(_face(face, model, request_id) | more), JSON)


def started(settings: Settings, model: str, request_id: str) -> dict[str, object]:
    """The first event of a stream."""
    return {
        "event": "started",
        "request_id": request_id,
        "model": model,
        "steps": settings.steps,
        "preset": settings.preset,
        "seed": settings.seed,
        "size": settings.size,
        "format": settings.format,
    }


def progressed(progress: Progress) -> dict[str, object]:
    """The event that says how far a face is."""
    return {"event": "progress", **_progress(progress)}


def previewed(progress: Progress, preview: Preview) -> dict[str, object]:
    """The event that shows a face on its way."""
    seen = {"format": "jpeg", "size": preview.size, "image": _base64(preview.image)}
    return {"event": "preview", **_progress(progress), **seen}


def result(face: Face, model: str, request_id: str) -> dict[str, object]:
    """The last event of a stream."""
    return {"event": "result", **_face(face, model, request_id)}


def lines(events: list[dict[str, Any]], verdict: bool | None = False) -> Answer:
    """Events as lines of a stream; a chunk without any is invisible to the client and tells whether it is there."""
    return Answer(200, b"".join(_json(event) + b"\n" for event in events), LINES, verdict=verdict)


def refusal(error: InputError, request_id: str) -> Answer:
    """The caller's mistake, with the status that belongs to its code."""
    return Answer(error.status, _json(_error(error.code, error.message, request_id)), JSON)


def unavailable(code: str, message: str, request_id: str, retry_after: int) -> Answer:
    """No place for now: `overloaded` or `draining`, and after how many seconds to try again."""
    return Answer(503, _json(_error(code, message, request_id)), JSON, {"Retry-After": str(retry_after)})


def failure(request_id: str) -> Answer:
    """A fault of ours: the log has the rest under the same request id."""
    return Answer(500, _json(_internal(request_id)), JSON)


def broken_off(request_id: str) -> Answer:
    """A fault of ours after a stream has begun, whose status can no longer be changed."""
    return lines([{"event": "error", **_internal(request_id)}], verdict=True)


def _internal(request_id: str) -> dict[str, object]:
    return _error("internal", "the face could not be made; the server's log names the fault", request_id)


def _error(code: str, message: str, request_id: str) -> dict[str, object]:
    return {"error": {"code": code, "message": message, "request_id": request_id}}


def _face(face: Face, model: str, request_id: str) -> dict[str, object]:
    return {
        "request_id": request_id,
        "model": model,
        "seed": face.seed,
        "steps": face.steps,
        "preset": face.preset,
        "size": face.size,
        "format": face.format,
        "image": _base64(face.image),
        "similarity": face.similarity,
        "first_similarity": face.first_similarity,
        "trace": face.trace,
        "batch": face.largest_batch,
        "prototypes": face.prototypes,
        "audio_seconds": face.audio_seconds,
        "speech_seconds": face.speech_seconds,
        "timings": face.timings,
        "digital_source_type": DIGITAL_SOURCE_TYPE,
    }


def _progress(progress: Progress) -> dict[str, object]:
    return {"step": progress.step, "steps": progress.steps, "similarity": progress.similarity}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
