"""TorchServe's way into VoiceStyle: the rows of all live requests in, the answers of the finished ones out.

It translates and knows no mathematics. TorchServe calls `handle` over and over with all live requests. An
answer's status and headers travel with its first chunk, but a face's similarity is known only at its end, and
a step may still fail: so an unfinished request gets no chunk at all. It is left out of the reply by deleting
its entry of `context.request_ids`, from which TorchServe 0.12 encodes the reply. TorchServe then keeps the
request and hands it over again, body included, in the next call; what it gets in the end is one plain
response with its own status, headers and length. The same holds over gRPC.

The price: TorchServe looks whether a client is still there only after a chunk, so the face of one that hung up
is finished and thrown away.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final

import torch

from handlers.answers import Answer, failure
from handlers.context import Context
from handlers.continuous_batch import ContinuousBatch
from handlers.requests import Row
from voicestyle.pipeline import Pipeline

log = logging.getLogger("voicestyle.handler")

BUNDLE: Final = "bundle"  # the folder inside the archive


class VoiceStyleHandler:
    """The one class in this module, as TorchServe demands; `initialize` comes before the first `handle`."""

    def initialize(self, context: Context) -> None:
        """Load and warm up the bundle of the archive; what is wrong with it is logged and raised."""
        # TorchServe's worker logs a line a call at INFO.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("voicestyle").setLevel(logging.INFO)
        properties = context.system_properties
        folder = Path(properties["model_dir"]) / BUNDLE
        gpu = properties.get("gpu_id")
        device = "cpu" if gpu is None or not torch.cuda.is_available() else f"cuda:{gpu}"
        if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        try:
            pipeline = Pipeline.load(folder, device=device, capacity=properties["batch_size"])
        except Exception as error:
            log.error("cannot serve the bundle: %s", error)
            raise
        self._batch = ContinuousBatch(pipeline)
        log.info(
            "ready: %s@%s on %s, up to %d requests in the batch",
            pipeline.manifest.name,
            pipeline.manifest.version,
            device,
            pipeline.capacity,
        )

    def handle(self, data: Sequence[Mapping[str, object]], context: Context) -> list[bytes]:
        """Give the batch a turn. Never raises: an exception here would fail every request of the batch."""
        ids = [context.request_ids[index] for index in range(len(data))]
        try:
            rows = [Row(key, data[i], context.get_all_request_header(i)) for i, key in enumerate(ids)]
            answers = self._batch.turn(rows)
        except Exception:
            log.exception("a turn failed; requests %s get a 500", ", ".join(ids))
            answers = {key: failure(key) for key in ids}
            for key in ids:
                self._batch.discard(key)
        bodies: list[bytes] = []
        for index, key in enumerate(ids):
            if key in answers:
                bodies.append(_send(answers[key], index, context))
            else:
                bodies.append(b"")
                del context.request_ids[index]
        return bodies


def _send(answer: Answer, index: int, context: Context) -> bytes:
    context.set_response_status(answer.status, HTTPStatus(answer.status).phrase, index)
    context.set_response_content_type(index, answer.content_type)
    for name, value in answer.headers.items():
        context.set_response_header(index, name, value)
    return answer.body
