"""TorchServe handler entry point.

TorchServe calls `handle` repeatedly, each time with all unfinished requests; `voicestyle.worker.torchserve` has the
rules of this exchange. TorchServe notices a client that disconnected only when it sends a chunk: without previews,
such a client's face is finished and then discarded.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from voicestyle.devices import choose_device, prepare_device
from voicestyle.pipeline import Pipeline
from voicestyle.precision import choose_dtype
from voicestyle.run_folder import RunFolder
from voicestyle.worker.continuous_batch import ContinuousBatch
from voicestyle.worker.metrics import Metrics
from voicestyle.worker.service_config import SECTION, ServiceConfig
from voicestyle.worker.torchserve import Context, limit_fields, read_rows, send_responses

log = logging.getLogger("voicestyle.handler")

BUNDLE: Final = "bundle"  # the folder inside the archive


class VoiceStyleHandler:
    """The only class in this module, as TorchServe requires. `initialize` is called before the first `handle`."""

    def initialize(self, context: Context) -> None:
        """Load the bundle of the archive and warm it up; an invalid bundle or configuration is logged and raised."""
        # TorchServe's worker logs a line per call at INFO.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("voicestyle").setLevel(logging.INFO)
        properties = context.system_properties
        metrics, run = Metrics(), RunFolder.from_environment()  # the metrics count failed starts too
        try:
            config = ServiceConfig.parse((context.model_yaml_config or {}).get(SECTION))
            device = choose_device(config.device, properties.get("gpu_id"))
            prepare_device(device)
            pipeline = Pipeline.load(
                Path(properties["model_dir"]) / BUNDLE,
                device=device,
                capacity=None if isinstance(config.live_requests, str) else config.live_requests,
                iteration_seconds=config.iteration_seconds,
                caps=config.caps,
                dtype=choose_dtype(config.dtype, device),
                batched=config.batched,
            )
        except Exception as error:
            log.error("the model could not be loaded: %s", error)
            raise
        manifest, computing = pipeline.manifest, pipeline.computing
        metrics.describe(manifest.name, manifest.version, computing)
        limit_fields()
        self._batch = ContinuousBatch(
            pipeline, config, metrics=metrics, draining=lambda: run is not None and run.draining
        )
        log.info("ready: %s@%s, %s, %s", manifest.name, manifest.version, computing, config)

    def handle(self, data: Sequence[Mapping[str, object]], context: Context) -> list[bytes]:
        """Run one iteration of the batch. Never raises: an exception would fail every request in the batch."""
        if self._batch.broken:
            log.critical("exiting after repeated step failures; TorchServe restarts the worker")
            logging.shutdown()
            os._exit(1)  # TorchServe catches SystemExit
        rows = read_rows(data, context)
        try:
            responses = self._batch.iterate(rows)
        except Exception:
            log.exception("an iteration failed; requests %s get a 500", ", ".join(row.id for row in rows))
            responses = {row.id: self._batch.fail(row) for row in rows}
        return send_responses(rows, responses, context)
