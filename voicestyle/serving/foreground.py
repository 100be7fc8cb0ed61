"""TorchServe as this process's business: served until a signal comes, and signals that let it be stopped in order."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from voicestyle.archive import ARCHIVE
from voicestyle.errors import ServerError
from voicestyle.serving.drain import DrainOptions, drain
from voicestyle.serving.operations import serve_pages
from voicestyle.serving.ports import HOST, Ports
from voicestyle.serving.server import TorchServe
from voicestyle.serving.supervisor import Supervisor

log = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def serve(
    archive: Path = ARCHIVE,
    *,
    ports: Ports | None = None,
    host: str = HOST,
    operations_host: str = HOST,
    draining: DrainOptions | None = None,
    on_ready: Callable[[TorchServe], None] | None = None,
) -> int:
    """Serve in the foreground until SIGTERM, SIGHUP or SIGINT, finish what was taken in, and return 0.

    The server writes to this process's output. host: where the inference ports listen; operations_host: where the
    operations port does. on_ready: called from another thread once the service is ready.

    Raises:
        ServerError: no archive, a port in use, a model that does not become ready, or a server that ended by itself.
        SystemExit: 128 + its number for a second signal, which cuts the finishing short.
    """
    server = TorchServe(archive, ports=ports or Ports(), host=host, console=True)
    supervisor = Supervisor(server)
    finishing = False
    with (
        stop_on_signals(times=2) as ignore_signals,
        serve_pages(operations_host, server.ports.operations, supervisor.pages()),
    ):
        try:
            with server, supervisor.watching(lambda: None if on_ready is None else on_ready(server)):
                try:
                    status = server.wait()
                except SystemExit:
                    finishing = True
                    supervisor.health.drain()
                    drain(supervisor, draining or DrainOptions())
                    ignore_signals()
                else:
                    raise ServerError(f"TorchServe ended by itself with status {status}")
        except SystemExit:
            if finishing:
                raise
            # While it was starting: nobody was taken in yet.
    log.info("stopped")
    return 0


@contextmanager
def stop_on_signals(times: int = 1) -> Generator[Callable[[], None]]:
    """Turn SIGTERM, SIGHUP and SIGINT into SystemExit(128 + number), so that `with` blocks are left.

    So many `times`; later ones are ignored, for a Ctrl-C must not interrupt the clearing up. Gives a function that
    ignores them from then on. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {each: signal.getsignal(each) for each in SIGNALS}
    left = times

    def ignore() -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)

    def leave(number: int, _: FrameType | None) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            ignore()
        raise SystemExit(128 + number)

    try:
        for each in before:
            signal.signal(each, leave)
        yield ignore
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
