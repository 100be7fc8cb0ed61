"""TorchServe handler of fixed batches, with which the continuous batch is compared; both use the same pipeline.

TorchServe's dynamic batching collects requests until the batch is full or its delay has passed. The handler optimises
these requests alone and responds to all of them at the end; TorchServe collects the next ones meanwhile.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter

from handlers import voicestyle_handler
from voicestyle.worker.request_parser import Row
from voicestyle.worker.responses import Answer as Response
from voicestyle.worker.torchserve import Context


class FixedBatchHandler(voicestyle_handler.VoiceStyleHandler):
    """Adds `held` to the timings of each face: the seconds for which its response waited for the others."""

    def handle(self, data: Sequence[Mapping[str, object]], context: Context) -> list[bytes]:
        """Iterate until each of these requests has a response."""
        rows = [Row(context.request_ids[i], fields, context.get_all_request_header(i)) for i, fields in enumerate(data)]
        found: dict[str, tuple[Response, float]] = {}
        while remaining := [row for row in rows if row.id not in found]:
            found |= {key: (response, perf_counter()) for key, response in self._batch.turn(remaining).items()}
        ended = perf_counter()
        return [
            voicestyle_handler._send(_with_held(response, ended - done), index, context)  # pyright: ignore[reportPrivateUsage]
            for index, (response, done) in enumerate(found[row.id] for row in rows)
        ]


def _with_held(response: Response, seconds: float) -> Response:
    if response.status != 200 or response.content_type != "application/json":
        return response
    face = json.loads(response.body)
    face["timings"]["held"] = round(seconds, 4)
    return replace(response, body=json.dumps(face).encode())
