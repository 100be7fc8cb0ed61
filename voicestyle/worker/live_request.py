"""One request between its first and its last word: what it still has to tell its client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from voicestyle.worker import responses as answers
from voicestyle.worker.request_parser import Protocol
from voicestyle.worker.responses import Answer

if TYPE_CHECKING:
    from voicestyle.engine import Progress
    from voicestyle.face import Face, Preview
    from voicestyle.options import Settings
    from voicestyle.pipeline import Prepared


@dataclass
class LiveRequest:
    """A request that was taken in: prepared, then in the batch. `began` is the time at which it was first seen.

    With previews, an HTTP client is told of its face in lines of JSON, and its first chunk goes out at once, which
    fixes the status but lets TorchServe notice that the client left. A gRPC call has one message: its previews are
    collected for the end.
    """

    id: str
    protocol: Protocol
    began: float
    model: str
    prepared: Prepared
    in_batch: bool = False
    streaming: bool = False
    _told: int = 0
    _shown: int = 0
    _events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def settings(self) -> Settings:
        """Its options, with nothing left open."""
        return self.prepared.settings

    @property
    def next_preview(self) -> int | None:
        """The step at which its next preview is due; previews divide the steps evenly."""
        wanted = self.settings.previews
        if self._shown >= wanted:
            return None
        return -(-(self._shown + 1) * self.settings.steps // (wanted + 1))

    def note_progress(self, progress: Progress) -> None:
        """Tell the client how far its face is, if it wants to know and has not been told."""
        if self._in_lines and progress.step > self._told:
            self._told = progress.step
            self._events.append(answers.progressed(progress))

    def note_preview(self, progress: Progress, preview: Preview) -> None:
        """Show the client its face on its way."""
        self._shown += 1
        self._events.append(answers.previewed(progress, preview))

    def chunk(self) -> Answer | None:
        """What to send now of an answer that is not complete; None for a client that gets it whole."""
        if not self._in_lines:
            return None
        events = self._take_events()
        self.streaming = True
        return answers.lines(events)

    def finish(self, face: Face) -> Answer:
        """The last word: the face."""
        if self._in_lines:
            events = [*self._take_events(), answers.result(face, self.model, self.id)]
            # TorchServe sends no headers before a last chunk: a stream without any other is a plain reply.
            return answers.lines(events, verdict=True if self.streaming else None)
        if self.protocol == "grpc" and self.settings.previews:
            return answers.document(face, self.model, self.id, previews=self._events).over(self.protocol)
        if self.protocol == "grpc" or self.settings.output == "json":
            return answers.document(face, self.model, self.id).over(self.protocol)
        return answers.picture(face, self.model)

    def fail(self) -> Answer:
        """The last word: a fault of ours."""
        return answers.broken_off(self.id) if self.streaming else answers.failure(self.id).over(self.protocol)

    @property
    def _in_lines(self) -> bool:
        return self.settings.previews > 0 and self.protocol == "http"

    def _take_events(self) -> list[dict[str, Any]]:
        events, self._events = self._events, []
        return events if self.streaming else [answers.started(self.settings, self.model, self.id), *events]
