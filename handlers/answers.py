"""What goes back to a client: the picture, or one JSON error of a fixed form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from voicestyle.errors import CallerError

if TYPE_CHECKING:
    from voicestyle.pipeline import Face


@dataclass(frozen=True)
class Answer:
    """The last word on one request: status, body, content type and headers."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def picture(face: Face, model: str) -> Answer:
    """The PNG, with what is known about it in headers."""
    return Answer(
        status=200,
        body=face.png,
        content_type="image/png",
        headers={
            "X-VoiceStyle-Similarity": f"{face.similarity:.6f}",
            "X-VoiceStyle-First-Similarity": f"{face.first_similarity:.6f}",
            "X-VoiceStyle-Seed": str(face.seed),
            "X-VoiceStyle-Steps": str(face.steps),
            "X-VoiceStyle-Size": str(face.size),
            "X-VoiceStyle-Batch": str(face.largest_batch),
            "X-VoiceStyle-Model": model,
        },
    )


def refusal(error: CallerError, request_id: str) -> Answer:
    """The caller's mistake, with the status that belongs to its code."""
    return _error(error.status, error.code, error.message, request_id)


def failure(request_id: str) -> Answer:
    """A fault of ours: the log has the rest under the same request id."""
    return _error(500, "internal", "the face could not be made; the server's log names the fault", request_id)


def _error(status: int, code: str, message: str, request_id: str) -> Answer:
    error = {"error": {"code": code, "message": message, "request_id": request_id}}
    return Answer(status, json.dumps(error, ensure_ascii=False).encode(), "application/json")
