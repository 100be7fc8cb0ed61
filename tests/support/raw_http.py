"""HTTP requests that no library sends: raw bytes on a socket, in pieces, and the parsed reply."""

import http.client
import socket
from contextlib import contextmanager
from dataclasses import dataclass

SECONDS = 30


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict
    body: bytes


def head(path, *lines, method="POST", version="1.1", host="Host: here"):
    """The head of a request, from header lines."""
    lines = [f"{method} {path} HTTP/{version}", *([host] if host else []), *lines]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


@contextmanager
def connection(port):
    with socket.create_connection(("127.0.0.1", port), SECONDS) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield opened


def read_reply(opened, method="POST"):
    """The next reply on a connection; None if the server closed it instead."""
    response = http.client.HTTPResponse(opened, method=method)
    try:
        response.begin()
        body = response.read()
    except (ConnectionError, http.client.HTTPException):
        return None
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def exchange(port, *pieces, method="POST"):
    """Send the pieces over a new connection and return the reply; None if there is none."""
    with connection(port) as opened:
        try:
            for piece in pieces:
                opened.sendall(piece)
        except ConnectionError:
            pass  # the server may reply and close before all is sent
        return read_reply(opened, method)
