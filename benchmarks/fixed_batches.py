"""The rival of the joining batch: TorchServe's own dynamic batching, on the same pipeline.

TorchServe collects requests until its batch is full or its delay is over; the handler takes that batch to its end,
and only then is handed the next. This file is the handler of an archive in that mode.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter

from handlers import voicestyle_handler
from voicestyle.worker.request_parser import Row
from voicestyle.worker.responses import Answer
from voicestyle.worker.torchserve import Context

HELD = "X-Benchmark-Held"


class FixedBatchHandler(voicestyle_handler.VoiceStyleHandler):
    """Answers all requests of a call at its end, and says in a header how long each answer lay ready."""

    def handle(self, data: Sequence[Mapping[str, object]], context: Context) -> list[bytes]:
        """Take turns with these requests alone until each has its answer."""
        rows = [Row(context.request_ids[i], fields, context.get_all_request_header(i)) for i, fields in enumerate(data)]
        found: dict[str, tuple[Answer, float]] = {}
        while left := [row for row in rows if row.id not in found]:
            answers = self._batch.turn(left)
            found |= {key: (answer, perf_counter()) for key, answer in answers.items()}
        ended = perf_counter()
        bodies: list[bytes] = []
        for index, row in enumerate(rows):
            answer, since = found[row.id]
            held = {HELD: f"{ended - since:.4f}"}
            whole = replace(answer, headers={**answer.headers, **held})
            bodies.append(voicestyle_handler._send(whole, index, context))  # pyright: ignore[reportPrivateUsage]
        return bodies
