"""TorchServe handler entry point.

TorchServe calls `handle` repeatedly, each time with all unfinished requests; `voicestyle.worker.torchserve` has the
rules of this exchange. TorchServe notices a client that disconnected only when it sends a chunk: without previews,
such a client's face is finished and then discarded.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Timer
from typing import Final

import psutil

from voicestyle.devices import asked_device, choose_device, prepare_device
from voicestyle.pipeline import Pipeline
from voicestyle.precision import choose_dtype
from voicestyle.run_folder import RunFolder
from voicestyle.worker.continuous_batch import ContinuousBatch
from voicestyle.worker.cuda_graphs import capture_failures_reported, choose_graphs
from voicestyle.worker.metrics import Metrics
from voicestyle.worker.service_config import SECTION, ServiceConfig
from voicestyle.worker.torchserve import Context, limit_fields, read_rows, send_responses

log = logging.getLogger("voicestyle.handler")

BUNDLE: Final = "bundle"  # the folder inside the archive
EXIT_SECONDS: Final = 0.2  # in which TorchServe reads the last responses; they are in its hands after milliseconds


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
            model_config = context.model_yaml_config or {}
            config = ServiceConfig.parse(model_config.get(SECTION))
            workers = int(model_config.get("minWorkers", 1))
            device = choose_device(asked_device(config.device), properties.get("gpu_id"), workers)
            prepare_device(device)
            with capture_failures_reported(config, run):
                pipeline = Pipeline.load(
                    Path(properties["model_dir"]) / BUNDLE,
                    device=device,
                    capacity=None if isinstance(config.live_requests, str) else config.live_requests,
                    iteration_seconds=config.iteration_seconds,
                    caps=config.caps,
                    dtype=choose_dtype(config.dtype, device),
                    batched=config.batched,
                    graphs=choose_graphs(config, run),
                )
        except Exception as error:
            log.error("the model could not be loaded: %s", error)
            raise
        manifest, computing = pipeline.manifest, pipeline.computing
        metrics.describe(manifest.name, manifest.version, computing)
        limit_fields()
        self._batch = ContinuousBatch(
            pipeline,
            config,
            metrics=metrics,
            draining=lambda: run is not None and run.draining,
            restart_seconds=time.time() - psutil.Process().create_time(),  # as long as this start took
        )
        log.info("ready: %s@%s, %s, %s", manifest.name, manifest.version, computing, config)

    def handle(self, data: Sequence[Mapping[str, object]], context: Context) -> list[bytes]:
        """Run one iteration of the batch. Never raises: an exception would fail every request in the batch."""
        if self._batch.broken:
            _exit()
        rows = read_rows(data, context)
        responses = self._batch.iterate(rows)
        if self._batch.broken:
            # TorchServe has to read these responses first. It has when it calls again, which it does for new requests.
            timer = Timer(EXIT_SECONDS, _exit)
            timer.daemon = True
            timer.start()
        return send_responses(rows, responses, context)


def _exit() -> None:
    """End this process; TorchServe catches SystemExit."""
    log.critical("this worker exits; TorchServe starts another one")
    logging.shutdown()
    os._exit(1)
