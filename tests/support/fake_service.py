"""A service without networks: it checks a request as the real one does and responds with a fixed face.

Unlike a scripted server it takes requests in any order, so it suits documentation and any HTTP client.
"""

import base64
import email
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.client_responses import FACE, IMAGE, RESULT, STARTED, encode, error, lines, preview, progress
from voicestyle.error_codes import ERROR_CODES, InputError
from voicestyle.options import Options

PATH = "/predictions/voicestyle"
PAGES = {"/ping", "/ready", "/live", "/metrics"}
PREFIX = "x-voicestyle-"
CLOSE = "close the connection"


@dataclass
class FakeService:
    """`error`: a code of `ERROR_CODES` to fail every request with, or CLOSE to close their connections."""

    error: str | None = None

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.respond(200 if self.path in PAGES else 404, b'{"status": "Healthy", "ok": true}')

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.error == CLOSE:
                    self.close_connection = True
                elif outer.error:
                    self.respond(ERROR_CODES[outer.error].status, encode(error(outer.error)), **{"Retry-After": "0"})
                elif self.path != PATH:
                    self.respond(404, b"{}")
                else:
                    self.predict(body)

            def predict(self, body):
                try:
                    options = Options.parse(request_options(self.headers, body))
                except InputError as problem:
                    self.respond(problem.status, encode(error(problem.code, str(problem))))
                    return
                if options.previews:
                    events = lines(STARTED, progress(2), preview(2), progress(4), preview(4), RESULT)
                    self.respond(200, events, "application/x-ndjson")
                elif options.output == "json":
                    self.respond(200, encode(FACE))
                else:
                    self.respond(200, IMAGE, "image/png", **{"X-VoiceStyle-Similarity": str(FACE["similarity"])})

            def respond(self, status, body, content_type="application/json", **headers):
                self.send_response(status)
                for name, value in {"Content-Type": content_type, "Content-Length": len(body), **headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"


def request_options(headers, body):
    """The options of a request as text. Raises InputError where the audio is missing or the body has another type."""
    given = {name[len(PREFIX) :]: value for name, value in headers.items() if name.lower().startswith(PREFIX)}
    kind = headers.get_content_type()
    if kind == "multipart/form-data":
        message = email.message_from_bytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body)
        fields = {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in message.get_payload()
        }
        audio = fields.pop("audio", b"")
        given |= {name: value.decode() for name, value in fields.items()}
    elif kind == "application/json":
        fields = json.loads(body)
        audio = base64.b64decode(fields.pop("audio", ""), validate=True)
        given |= {name: str(value) for name, value in fields.items()}
    else:
        audio = body if kind == "application/octet-stream" or kind.startswith("audio/") else b""
    if not audio:
        raise InputError("not_audio", f"the request must carry audio, got {len(body)} bytes of {kind}")
    return given
