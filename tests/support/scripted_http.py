"""An HTTP server with scripted responses: one entry per request, each a list of bytes to send and of actions."""

import socket
import socketserver
import struct
import threading
from dataclasses import dataclass, field

from tests.support.client_responses import encode

RESET = "reset the connection"
CLOSE = "close the connection"
SILENCE = "send nothing until the client disconnects"

SECONDS = 20  # timeout of what never takes long


@dataclass
class ReceivedRequest:
    line: str
    headers: dict
    body: bytes


@dataclass
class ScriptedServer:
    """`script` holds the responses to come, `requests` those received so far.

    `disconnected` is set when a client disconnects during a SILENCE.
    """

    script: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    disconnected: threading.Event = field(default_factory=threading.Event)

    def __enter__(self):
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                outer.serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request, client_address):
                if not outer.disconnected.is_set():
                    super().handle_error(request, client_address)

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(SECONDS)

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def serve(self, connection):
        connection.settimeout(SECONDS)
        while request := read_request(connection):
            self.requests.append(request)
            for action in self.script.pop(0):
                if isinstance(action, bytes):
                    connection.sendall(action)
                elif action == SILENCE:
                    while connection.recv(65536):
                        pass
                    self.disconnected.set()
                    return
                elif action == RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()
                    return
                else:
                    assert action == CLOSE
                    return


def read_request(connection):
    """The next request of a connection; None at its end."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return ReceivedRequest(line, headers, body)


def plain(status, body, content_type="application/json", **headers):
    """A complete response; bytes are sent as they are, anything else as JSON."""
    body = body if isinstance(body, bytes) else encode(body)
    fields = {"Content-Type": content_type, "Content-Length": len(body)}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Phrase\r\n{head}\r\n".encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream(data, size=None):
    """A complete stream in chunks of `size` bytes, or in one."""
    size = size or len(data)
    return STREAM_HEAD + b"".join(chunk(data[at : at + size]) for at in range(0, len(data), size)) + STREAM_END
