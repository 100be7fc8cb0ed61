"""TorchServe's way into VoiceStyle: the rows of all live requests in, what is to be told to whom out.

It translates and knows no mathematics. TorchServe calls `handle` over and over with all live requests. An
answer's status and headers travel with its first chunk, but a face's similarity is known only at its end, and
a step may still fail: so an unfinished request that did not ask for previews gets no chunk at all. It is left out of
the reply by deleting its entry of `context.request_ids`, from which TorchServe 0.12 encodes the reply. TorchServe then
keeps the request and hands it over again, body included, in the next call; what it gets in the end is one plain
response with its own status, headers and length. Over gRPC, where TorchServe drops a call after its first chunk, this
is what lets it share the batch.

The price: TorchServe looks whether a client is still there only after a chunk, so without previews the face of one
that hung up is finished and thrown away.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final

import torch

from voicestyle.pipeline import Pipeline
from voicestyle.precision import choose_dtype
from voicestyle.run_folder import RunFolder
from voicestyle.worker.continuous_batch import ContinuousBatch
from voicestyle.worker.field_limit import bound_fields
from voicestyle.worker.metrics import Metrics
from voicestyle.worker.request_parser import Row
from voicestyle.worker.responses import Answer
from voicestyle.worker.service_config import SECTION, ServiceConfig
from voicestyle.worker.torchserve import Context

log = logging.getLogger("voicestyle.handler")

BUNDLE: Final = "bundle"  # the folder inside the archive


class VoiceStyleHandler:
    """The one class in this module, as TorchServe demands; `initialize` comes before the first `handle`."""

    def initialize(self, context: Context) -> None:
        """Load and warm up the bundle of the archive; what is wrong with it or the limits is logged and raised."""
        # TorchServe's worker logs a line a call at INFO.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("voicestyle").setLevel(logging.INFO)
        properties = context.system_properties
        gpu = properties.get("gpu_id")
        device = "cpu" if gpu is None or not torch.cuda.is_available() else f"cuda:{gpu}"
        if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        metrics = Metrics()  # counts starts, those that fail too
        try:
            limits = ServiceConfig.parse((context.model_yaml_config or {}).get(SECTION))
            dtype = choose_dtype(limits.dtype, device)
            pipeline = Pipeline.load(
                Path(properties["model_dir"]) / BUNDLE,
                device=device,
                capacity=limits.live_requests,
                caps=limits.caps,
                dtype=dtype,
            )
        except Exception as error:
            log.error("cannot serve the bundle: %s", error)
            raise
        manifest = pipeline.manifest
        computes_in = str(dtype).removeprefix("torch.")
        metrics.describe(
            model=manifest.name,
            version=manifest.version,
            device=device,
            dtype=computes_in,
            capacity=pipeline.capacity,
        )
        bound_fields()
        run = RunFolder.from_environment()
        self._batch = ContinuousBatch(
            pipeline, limits, metrics=metrics, draining=lambda: run is not None and run.draining
        )
        log.info("ready: %s@%s on %s in %s, %s", manifest.name, manifest.version, device, computes_in, limits)

    def handle(self, data: Sequence[Mapping[str, object]], context: Context) -> list[bytes]:
        """Give the batch a turn. Never raises: an exception here would fail every request of the batch."""
        if self._batch.broken:
            log.critical("steps keep failing: this worker ends, TorchServe starts another")
            logging.shutdown()
            os._exit(1)  # TorchServe catches SystemExit
        rows = [Row(context.request_ids[i], fields, context.get_all_request_header(i)) for i, fields in enumerate(data)]
        try:
            answers = self._batch.turn(rows)
        except Exception:
            log.exception("a turn failed; requests %s get a 500", ", ".join(row.id for row in rows))
            answers = {row.id: self._batch.fail(row.id, row) for row in rows}
        bodies: list[bytes] = []
        for index, row in enumerate(rows):
            if row.id in answers:
                bodies.append(_send(answers[row.id], index, context))
            else:
                bodies.append(b"")
                del context.request_ids[index]
        verdicts = [answers[row.id].verdict if row.id in answers else None for row in rows]
        context.stopping_criteria = [lambda _, verdict=verdict: verdict for verdict in verdicts]
        return bodies


def _send(answer: Answer, index: int, context: Context) -> bytes:
    context.set_response_status(answer.status, HTTPStatus(answer.status).phrase, index)
    context.set_response_content_type(index, answer.content_type)
    for name, value in answer.headers.items():
        context.set_response_header(index, name, value)
    return answer.body
