"""TorchServe handler of fixed batches, with which the continuous batch is compared; both use the same pipeline.

TorchServe's dynamic batching collects requests until the batch is full or its delay has passed. The handler optimises
these requests alone and responds to all of them at the end; TorchServe collects the next ones meanwhile.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter

from handlers import voicestyle_handler
from voicestyle.worker.responses import JSON, Response
from voicestyle.worker.torchserve import Context, read_rows, send_responses


class FixedBatchHandler(voicestyle_handler.VoiceStyleHandler):
    """Adds `held` to the timings of each face: the seconds for which its response waited for the others."""

    def handle(self, data: Sequence[Mapping[str, object]], context: Context) -> list[bytes]:
        """Iterate until each of these requests has a response."""
        rows = read_rows(data, context)
        found: dict[str, tuple[Response, float]] = {}
        while remaining := [row for row in rows if row.id not in found]:
            found |= {key: (response, perf_counter()) for key, response in self._batch.iterate(remaining).items()}
        end = perf_counter()
        responses = {key: _with_held(response, end - done) for key, (response, done) in found.items()}
        return send_responses(rows, responses, context)


def _with_held(response: Response, seconds: float) -> Response:
    if response.status != 200 or response.content_type != JSON:
        return response
    face = json.loads(response.body)
    face["timings"]["held"] = round(seconds, 4)
    return replace(response, body=json.dumps(face).encode())
