"""HTTP as no library would send it: bytes on a socket, in pieces, and whatever comes back."""

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
    """The next reply on a connection; None where it was closed instead."""
    response = http.client.HTTPResponse(opened, method=method)
    try:
        response.begin()
        body = response.read()
    except (ConnectionError, http.client.HTTPException):
        return None
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def exchange(port, *pieces, method="POST"):
    """Send the pieces over a connection of their own and return the reply; None where there is none."""
    with connection(port) as opened:
        try:
            for piece in pieces:
                opened.sendall(piece)
        except ConnectionError:
            pass  # it may have answered and closed before all was sent
        return read_reply(opened, method)
