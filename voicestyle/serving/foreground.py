"""TorchServe as this process's business: served until a signal comes, and signals that let it be stopped in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from voicestyle.archive import ARCHIVE
from voicestyle.serving.ports import Ports
from voicestyle.serving.server import TorchServe


def serve(
    archive: Path = ARCHIVE,
    *,
    ports: Ports | None = None,
    on_ready: Callable[[TorchServe], None] | None = None,
) -> int:
    """Serve in the foreground until SIGTERM or SIGINT, or until the server ends; return an exit status.

    The server writes to this process's output; `on_ready` is called once the model is ready.

    Raises:
        ServerError: no archive, a port in use, or a model that does not become ready.
    """
    with stop_on_signals(), TorchServe(archive, ports=ports or Ports(), console=True) as server:
        if on_ready is not None:
            on_ready(server)
        return server.wait()


@contextmanager
def stop_on_signals() -> Generator[None]:
    """Turn SIGTERM, SIGHUP and SIGINT into SystemExit(128 + number), so that `with` blocks are left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the stopping
        raise SystemExit(128 + number)

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        for each in before:
            signal.signal(each, leave)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
