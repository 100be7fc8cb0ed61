"""What a client that asked for previews receives before its face is finished."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from voicestyle.worker.responses import (
    Response,
    event_lines,
    json_response,
    preview_event,
    progress_event,
    result_event,
    started_event,
)

if TYPE_CHECKING:
    from voicestyle.face import Face, Preview
    from voicestyle.options import Settings
    from voicestyle.pipeline import Progress
    from voicestyle.worker.request_parser import Protocol


@dataclass
class PreviewStream:
    """The previews of one request.

    An HTTP client gets events as JSON lines. The first chunk is sent at once: it fixes the status, but lets TorchServe
    notice a client that disconnects. A gRPC call has one message, so its previews are collected for the end.
    """

    request_id: str
    protocol: Protocol
    model: str
    settings: Settings
    started: bool = False  # whether a chunk was sent
    _last_step: int = 0
    _events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add_progress(self, progress: Progress) -> None:
        """Report progress with the next chunk, unless it was reported before."""
        if self.protocol == "http" and progress.step > self._last_step:
            self._last_step = progress.step
            self._events.append(progress_event(progress))

    def add_preview(self, progress: Progress, preview: Preview) -> None:
        """Send a preview with the next chunk."""
        self._events.append(preview_event(progress, preview))

    def next_chunk(self) -> Response | None:
        """The chunk to send now; None over gRPC."""
        if self.protocol == "grpc":
            return None
        events = self._take_events()
        self.started = True
        return event_lines(events)

    def finish(self, face: Face) -> Response:
        """The last chunk, or the whole response if no chunk was sent before."""
        if self.protocol == "grpc":
            return json_response(face, self.model, self.request_id, previews=self._events)
        events = [*self._take_events(), result_event(face, self.model, self.request_id)]
        return event_lines(events, is_chunk=self.started, is_final=True)

    def _take_events(self) -> list[dict[str, Any]]:
        events, self._events = self._events, []
        return events if self.started else [started_event(self.settings, self.model, self.request_id), *events]
