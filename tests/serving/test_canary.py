"""The canary: its synthetic voice, its request, and the outcome of each response."""

import io
import json
import re
import socket
import threading
import wave
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from cmpc2.vad import speech_only
from voicestyle.errors import ServerError
from voicestyle.serving.canary import Canary, Outcome
from voicestyle.serving.canary_voice import RATE, canary_wav, vowel


@pytest.mark.parametrize("mode", [2, 3])
@pytest.mark.parametrize("seconds", [0.6, 1.0, 2.5])
def test_the_synthetic_vowel_is_detected_as_speech(seconds, mode):
    assert len(speech_only(vowel(seconds), mode)) / RATE > seconds - 0.1


def test_the_detector_rejects_a_whistle():
    whistle = (6000 * np.sin(2 * np.pi * 7000 * np.arange(RATE) / RATE)).astype(np.int16)
    assert len(speech_only(whistle, 2)) / RATE < 0.5


def test_the_canary_s_audio_is_deterministic():
    assert canary_wav(0.8) == canary_wav(0.8)
    with wave.open(io.BytesIO(canary_wav(0.8))) as read:
        assert (read.getframerate(), read.getsampwidth(), read.getnchannels()) == (16000, 2, 1)
        assert read.getnframes() == 12800


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.seen.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
        status, content_type, body = self.server.response
        if status is None:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def server_that_responds(*response):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.response, server.seen = response, []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def error_of(code):
    return json.dumps({"error": {"code": code, "message": "…", "request_id": "1"}}).encode()


TORCHSERVE_ERROR = b'{"code": 503, "type": "ServiceUnavailableException", "message": "full"}'


@pytest.mark.parametrize(
    ("response", "steps", "outcome", "message"),
    [
        ((200, "image/png", b"\x89PNG"), [0, 1], Outcome.ANSWERED, "a face after"),
        ((200, "text/html", b"hello"), [0, 0], Outcome.FAILED, "200 without an error code of the handler"),
        ((503, "application/json", error_of("overloaded")), [0, 0], Outcome.FULL, "503 overloaded"),
        ((503, "application/json", error_of("draining")), [0, 0], Outcome.DRAINING, "503 draining"),
        ((500, "application/json", error_of("internal")), [0, 9], Outcome.FAILED, "500 internal"),
        ((415, "application/json", error_of("not_audio")), [0, 9], Outcome.FAILED, "415 not_audio"),
        (
            (503, "application/json", TORCHSERVE_ERROR),
            [4, 9],
            Outcome.BUSY,
            "5 steps or instant faces were made meanwhile",
        ),
        ((503, "application/json", TORCHSERVE_ERROR), [4, 4], Outcome.FAILED, "503 without an error code"),
        ((None, "", b""), [4, 9], Outcome.BUSY, "RemoteDisconnected, but 5 steps"),
        ((None, "", b""), [4, 4], Outcome.FAILED, "RemoteDisconnected"),
    ],
)
def test_a_canary_s_outcome_follows_its_response(response, steps, outcome, message):
    with server_that_responds(*response) as server:
        url = f"http://127.0.0.1:{server.server_port}/predictions/voicestyle"
        counts = iter(steps)
        result = Canary(url, b"RIFF", 32, lambda: next(counts)).send()
    assert result.outcome is outcome
    assert message in result.message
    path, headers, body = server.seen[0]
    assert (path, body) == ("/predictions/voicestyle", b"RIFF")
    assert (headers["X-VoiceStyle-Steps"], headers["X-VoiceStyle-Size"]) == ("1", "32")


@pytest.mark.parametrize(("steps", "outcome"), [([0, 0], Outcome.FAILED), ([0, 3], Outcome.BUSY)])
def test_a_canary_that_times_out(steps, outcome):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        counts = iter(steps)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/predictions/voicestyle"
        result = Canary(url, b"RIFF", 32, lambda: next(counts), seconds=0.05).send()
    assert result.outcome is outcome
    assert re.search(r"no response after 0\.\d s: TimeoutError", result.message)


def test_the_canary_matches_the_archive_s_bundle(tiny_archive):
    canary = Canary.of(tiny_archive, "http://127.0.0.1:1/predictions/voicestyle", lambda: 0)
    assert canary.size == 32
    with wave.open(io.BytesIO(canary.body)) as read:
        assert read.getnframes() / read.getframerate() == pytest.approx(1.0)


def test_an_archive_without_a_bundle_is_an_error(tmp_path):
    empty = tmp_path / "empty.mar"
    with zipfile.ZipFile(empty, "w"):
        pass
    with pytest.raises(ServerError, match=r"empty\.mar is no archive of a bundle"):
        Canary.of(empty, "", lambda: 0)
