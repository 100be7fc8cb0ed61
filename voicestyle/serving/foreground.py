"""Run TorchServe in the foreground until a signal comes, then shut it down gracefully."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from voicestyle.errors import ServerError
from voicestyle.serving.device_check import check_device
from voicestyle.serving.drain import DrainOptions, drain
from voicestyle.serving.operations import serve_pages
from voicestyle.serving.ports import HOST, Ports
from voicestyle.serving.server import TorchServe
from voicestyle.serving.supervisor import Supervisor

log = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def serve(
    archive: Path,
    *,
    ports: Ports | None = None,
    host: str = HOST,
    operations_host: str = HOST,
    draining: DrainOptions | None = None,
    on_ready: Callable[[TorchServe], None] | None = None,
) -> int:
    """Serve until SIGTERM, SIGHUP or SIGINT, finish the admitted requests, and return 0.

    The server writes to this process's output. host: the address of the inference ports; operations_host: the
    address of the operations port. on_ready: called from another thread once the service is ready.

    Raises:
        ServerError: no archive, a port in use, a CUDA device that was asked for and cannot be used, a model that does
            not become ready, or a server that ended by itself.
        SystemExit: 128 + the signal's number after a second signal, which ends the draining early.
    """
    server = TorchServe(archive, ports=ports or Ports(), host=host, console=True)
    supervisor = Supervisor(server)
    drained = False
    with (
        stop_on_signals(times=2) as ignore_signals,
        serve_pages(operations_host, server.ports.operations, supervisor.pages()),
    ):
        try:
            check_device(server.archive)
            with server, supervisor.watching(lambda: None if on_ready is None else on_ready(server)):
                try:
                    status = server.wait()
                except SystemExit:
                    drained = True
                    supervisor.health.drain()
                    drain(supervisor, draining or DrainOptions())
                    ignore_signals()
                else:
                    raise ServerError(f"TorchServe ended by itself with status {status}")
        except SystemExit:
            if drained:
                raise
            # The signal came during the start: there is no request to finish.
    log.info("stopped")
    return 0


@contextmanager
def stop_on_signals(times: int = 1) -> Generator[Callable[[], None]]:
    """Turn SIGTERM, SIGHUP and SIGINT into SystemExit(128 + number), so that `with` blocks clean up.

    The first `times` signals do so; later ones are ignored, so that a second Ctrl-C does not interrupt the cleanup.
    Yields a function that ignores the signals from then on. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {each: signal.getsignal(each) for each in SIGNALS}
    remaining = times

    def ignore() -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal remaining
        remaining -= 1
        if remaining == 0:
            ignore()
        raise SystemExit(128 + number)

    try:
        for each in before:
            signal.signal(each, stop)
        yield ignore
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
