"""The operations port: `/live`, `/ready` and `/metrics` over HTTP, in threads of this process."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

from voicestyle.errors import ServerError

log = logging.getLogger(__name__)

Page = Callable[[], tuple[HTTPStatus, str, bytes]]  # status, content type, body
SOCKET_SECONDS: Final = 10.0  # for a client that sends nothing


def json_page(ok: bool, content: dict[str, Any]) -> tuple[HTTPStatus, str, bytes]:
    """The response to a probe: 200, or 503 which counts as a failed probe."""
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "application/json", json.dumps(content).encode() + b"\n"


@contextmanager
def serve_pages(host: str, port: int, pages: dict[str, Page]) -> Generator[int]:
    """Serve `pages` by path, for GET and HEAD, until the block is left; yields the port (a free one for port 0).

    Raises:
        ServerError: the port is in use, or the address is not of this machine.
    """
    try:
        server = _Server((host, port), _handler(pages))
    except OSError as error:
        raise ServerError(f"cannot listen on port {port} of {host}: {error.strerror}") from error
    thread = Thread(target=server.serve_forever, args=(0.1,), name="operations", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # an idle client must not delay the shutdown

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: a client that disconnects is no error."""


def _handler(pages: dict[str, Page]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = SOCKET_SECONDS
        server_version = "voicestyle"
        sys_version = ""

        def do_GET(self) -> None:
            status, content_type, body = self._page()
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 (http.server's name)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
            """Log nothing: probes come every few seconds."""

        def _page(self) -> tuple[HTTPStatus, str, bytes]:
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                known = ", ".join(pages)
                return HTTPStatus.NOT_FOUND, "text/plain", f"the paths are {known}\n".encode()
            try:
                return page()
            except Exception:
                log.exception("%s failed", self.path.partition("?")[0])
                return HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"internal error; see the log\n"

    return Handler
