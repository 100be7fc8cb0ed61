"""Whether a worker captures its steps as CUDA graphs, and what happens if it cannot.

A process in which a capture failed runs no step: with `graphs: auto`, TorchServe starts another one, without graphs.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from voicestyle.errors import CaptureError
from voicestyle.worker.service_config import SECTION

if TYPE_CHECKING:
    from voicestyle.pipeline import Graphs
    from voicestyle.run_folder import RunFolder
    from voicestyle.worker.service_config import ServiceConfig

log = logging.getLogger("voicestyle.handler")


def choose_graphs(config: ServiceConfig, run: RunFolder | None) -> Graphs:
    """What the configuration asks for; `auto` is on, and failed once a worker of this run could not capture."""
    if isinstance(config.graphs, bool):
        return "on" if config.graphs else "off"
    cause = None if run is None else run.graphs_failed
    if cause is None:
        return "on"
    log.warning("this worker runs without CUDA graphs, which is slower; in an earlier worker, %s", cause)
    return "failed"


@contextmanager
def capture_failures_reported(config: ServiceConfig, run: RunFolder | None) -> Generator[None]:
    """Complete the message of a CaptureError by what can be done; with `auto`, let the next worker run without graphs.

    Without a run folder, the next worker could not know of it, so `auto` fails there as `true` does.
    """
    try:
        yield
    except CaptureError as error:
        if isinstance(config.graphs, bool) or run is None:
            remedy = f"graphs: false in the section {SECTION} serves without graphs, which is slower"
        else:
            run.report_graphs_failed(str(error))
            remedy = "the next worker serves without graphs"
        raise CaptureError(f"{error}; {remedy}") from error
