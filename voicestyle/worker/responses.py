"""What a client receives: the image, JSON, lines of a stream, or one JSON error."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from voicestyle.error_codes import ERROR_CODES
from voicestyle.images import DIGITAL_SOURCE_TYPE
from voicestyle.options import OPTIONS, Settings

if TYPE_CHECKING:
    from voicestyle.face import Face, Preview
    from voicestyle.pipeline import Progress

JSON: Final = "application/json"
JSON_LINES: Final = "application/x-ndjson"
MAX_RETRY_AFTER: Final = 60  # seconds
FAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "internal": "the face could not be made; see the server's log for this request id",
        "out_of_memory": "the device has too little free memory now; retry later",
        "device_failed": "the device failed and the service is restarting; retry later",
    }
)


@dataclass(frozen=True)
class Response:
    """What one request gets in a call: a whole response, or a chunk of one, of which `is_final` marks the last."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    is_chunk: bool = False
    is_final: bool = True


def image_response(face: Face, model: str) -> Response:
    """The image, with what is known about it in headers."""
    known = {
        "Similarity": f"{face.similarity:.6f}",
        "First-Similarity": f"{face.first_similarity:.6f}",
        **{name.capitalize(): str(value) for name, value in _settings(face.settings).items()},
        "Batch": str(face.largest_batch),
        "Dtype": face.dtype,
        "Model": model,
    }
    headers = {f"X-VoiceStyle-{name}": value for name, value in known.items()}
    return Response(200, face.image, f"image/{face.settings.format}", headers)


def json_response(face: Face, model: str, request_id: str, **more: object) -> Response:
    """The image and all that is known about it, as JSON."""
    return Response(200, _json(_face(face, model, request_id) | more), JSON)


def error_response(
    code: str, message: str, request_id: str, retry_after: float | None = None, *, is_chunk: bool = False
) -> Response:
    """An error of `ERROR_CODES`. retry_after: seconds. is_chunk: whether it is the last line of a started stream.

    The status and the headers of a stream were sent with its first line, so its last line has neither.
    """
    error = {"error": {"code": code, "message": message, "request_id": request_id}}
    if is_chunk:
        return event_lines([{"event": "error", **error}], is_final=True)
    headers: dict[str, str] = {}
    if retry_after is not None:
        headers["Retry-After"] = str(min(max(math.ceil(retry_after), 1), MAX_RETRY_AFTER))
    return Response(ERROR_CODES[code].status, _json(error), JSON, headers)


def fault_response(code: str, request_id: str, retry_after: float | None = None, *, is_chunk: bool = False) -> Response:
    """An error that is a fault of the service; arguments as those of `error_response`."""
    return error_response(code, FAULTS[code], request_id, retry_after, is_chunk=is_chunk)


def event_lines(events: Sequence[Mapping[str, Any]], *, is_chunk: bool = True, is_final: bool = False) -> Response:
    """Events as lines of a stream. A chunk without events is invisible to the client."""
    body = b"".join(_json(event) + b"\n" for event in events)
    return Response(200, body, JSON_LINES, is_chunk=is_chunk, is_final=is_final)


def started_event(settings: Settings, model: str, request_id: str) -> dict[str, object]:
    """The first event of a stream."""
    return {"event": "started", "request_id": request_id, "model": model, **_settings(settings)}


def progress_event(progress: Progress) -> dict[str, object]:
    """The event that reports progress."""
    return {"event": "progress", **_progress(progress)}


def preview_event(progress: Progress, preview: Preview) -> dict[str, object]:
    """The event that contains a preview."""
    image = {"format": "jpeg", "size": preview.size, "image": _base64(preview.image)}
    return {"event": "preview", **_progress(progress), **image}


def result_event(face: Face, model: str, request_id: str) -> dict[str, object]:
    """The last event of a stream."""
    return {"event": "result", **_face(face, model, request_id)}


def _settings(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name, option in OPTIONS.items() if option.local}


def _face(face: Face, model: str, request_id: str) -> dict[str, object]:
    return {
        "request_id": request_id,
        "model": model,
        **_settings(face.settings),
        "image": _base64(face.image),
        "similarity": face.similarity,
        "first_similarity": face.first_similarity,
        "trace": face.trace,
        "batch": face.largest_batch,
        "dtype": face.dtype,
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
