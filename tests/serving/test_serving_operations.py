"""The operations port, the canary, and what readiness and liveness are made of; no TorchServe runs here."""

import http.client
import io
import json
import socket
import threading
import wave
import zipfile
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from cmpc2.vad import speech_only
from voicestyle.errors import ServerError
from voicestyle.serving.canary import Canary, Outcome
from voicestyle.serving.canary_voice import RATE, canary_wav, vowel
from voicestyle.serving.health import FRESH, HUNG, PERIOD, RETRY, Health
from voicestyle.serving.operations import json_page, serve_pages
from voicestyle.serving.run_folder import RunFolder
from voicestyle.serving.unsent import unsent_bytes


class FakeServer:
    def __init__(self):
        self.ended = None
        self.pids = [11]

    def worker_pids(self):
        return self.pids


class World:
    """A health with a clock and canaries in the test's hands."""

    def __init__(self):
        self.server = FakeServer()
        self.now = 1000.0
        self.says = (Outcome.ANSWERED, "a face")
        self.sent = 0
        self.health = Health(self.server, self._send, clock=lambda: self.now)

    def _send(self):
        self.sent += 1
        return self.says

    def after(self, seconds):
        self.now += seconds
        self.health.look()
        return self


@pytest.fixture
def world():
    return World()


def why_not(verdict):
    return {name: why for name, why in verdict.conditions.items() if why}


# the voice


@pytest.mark.parametrize("mode", [2, 3])
@pytest.mark.parametrize("seconds", [0.6, 1.0, 2.5])
def test_the_canary_s_voice_is_speech_to_the_detector(seconds, mode):
    assert len(speech_only(vowel(seconds), mode)) / RATE > seconds - 0.1


def test_the_detector_can_say_no():
    whistle = (6000 * np.sin(2 * np.pi * 7000 * np.arange(RATE) / RATE)).astype(np.int16)
    assert len(speech_only(whistle, 2)) / RATE < 0.5


def test_the_canary_s_file_is_the_same_every_time():
    assert canary_wav(0.8) == canary_wav(0.8)
    with wave.open(io.BytesIO(canary_wav(0.8))) as read:
        assert (read.getframerate(), read.getsampwidth(), read.getnchannels()) == (16000, 2, 1)
        assert read.getnframes() == 12800


# readiness and liveness


def test_ready_once_a_canary_sang(world):
    assert why_not(world.health.ready()) == {"canary": "none was sent yet"}
    world.health.look()
    assert world.health.ready().holds
    assert world.health.ready().json() == {
        "ok": True,
        "conditions": {"taking": "ok", "java": "ok", "model": "ok", "canary": "ok"},
    }


@pytest.mark.parametrize("outcome", [Outcome.FULL, Outcome.BUSY])
def test_a_full_service_is_ready_and_alive(world, outcome):
    world.says = (outcome, "503 overloaded")
    for _ in range(100):
        world.after(PERIOD)
    assert world.health.ready().holds
    assert world.health.live().holds


def test_a_canary_is_sent_once_a_period_and_not_per_probe(world):
    world.after(0).after(PERIOD / 2)
    for _ in range(10):
        world.health.ready()
        world.health.live()
    assert world.sent == 1
    world.after(PERIOD / 2)
    assert world.sent == 2


def test_a_failed_canary_is_tried_again_soon_and_says_why(world):
    world.after(0)
    world.says = (Outcome.FAILED, "500 internal after 0.1 s")
    world.after(PERIOD)
    assert why_not(world.health.ready()) == {"canary": "500 internal after 0.1 s"}
    assert world.health.live().holds
    world.says = (Outcome.ANSWERED, "a face")
    world.after(RETRY)
    assert world.health.ready().holds
    assert world.health.canaries == {
        Outcome.ANSWERED: 2,
        Outcome.FULL: 0,
        Outcome.BUSY: 0,
        Outcome.DRAINING: 0,
        Outcome.FAILED: 1,
    }


def test_a_new_worker_needs_a_canary_of_its_own(world):
    world.after(0)
    world.server.pids = []
    assert why_not(world.health.ready()) == {
        "model": "no living worker has the model loaded",
        "canary": "none was sent to this worker yet",
    }
    assert world.health.live().holds  # TorchServe starts another one
    world.server.pids = [12]
    assert why_not(world.health.ready()) == {"canary": "none was sent to this worker yet"}
    world.after(1)
    assert world.health.ready().holds
    assert world.sent == 2


def test_an_old_song_is_not_believed(world):
    world.after(0)
    world.now += FRESH + 1
    assert why_not(world.health.ready()) == {"canary": f"the last one is {FRESH + 1:.0f} s old"}


def test_without_a_good_canary_for_long_it_is_not_alive(world):
    world.after(0)
    world.says = (Outcome.FAILED, "no answer within 60 s")
    while world.now < 1000 + HUNG:
        assert world.health.live().holds
        world.after(RETRY)
    world.after(RETRY)
    assert why_not(world.health.live()) == {"progress": f"no canary was answered for {HUNG + RETRY:.0f} s"}
    world.health.drain()
    assert world.health.live().holds  # it is being stopped anyway


def test_a_slow_start_is_alive_and_not_ready(world):
    world.server.pids = []
    world.after(10 * HUNG)
    assert world.sent == 0
    assert world.health.live().holds
    assert not world.health.ready().holds


def test_a_service_that_drains_is_alive_and_not_ready(world):
    world.after(0)
    world.health.drain()
    assert why_not(world.health.ready()) == {"taking": "the service is stopping"}
    assert world.health.live().holds
    world.after(PERIOD)
    assert world.sent == 1


def test_without_java_it_is_neither(world):
    world.after(0)
    world.server.ended = -9
    assert why_not(world.health.ready()) == {"java": "TorchServe ended with status -9"}
    assert why_not(world.health.live()) == {"java": "TorchServe ended with status -9"}


def test_constants_fit_each_other():
    from voicestyle.serving.canary import ANSWER_SECONDS

    assert PERIOD + ANSWER_SECONDS < FRESH < HUNG
    assert HUNG > 120 + 300  # responseTimeout and startupTimeout of the model's configuration


# the canary's request


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.seen.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
        status, content_type, body = self.server.answer
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
def handler_that_says(*answer):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answer, server.seen = answer, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def error_of(code):
    return json.dumps({"error": {"code": code, "message": "…", "request_id": "1"}}).encode()


TORCHSERVE_S_OWN = b'{"code": 503, "type": "ServiceUnavailableException", "message": "full"}'


@pytest.mark.parametrize(
    ("answer", "steps", "outcome", "words"),
    [
        ((200, "image/png", b"\x89PNG"), [0, 1], Outcome.ANSWERED, "a face after"),
        ((200, "text/html", b"hello"), [0, 0], Outcome.FAILED, "200 without a code of ours"),
        ((503, "application/json", error_of("overloaded")), [0, 0], Outcome.FULL, "503 overloaded"),
        ((503, "application/json", error_of("draining")), [0, 0], Outcome.DRAINING, "503 draining"),
        ((500, "application/json", error_of("internal")), [0, 9], Outcome.FAILED, "500 internal"),
        ((415, "application/json", error_of("not_audio")), [0, 9], Outcome.FAILED, "415 not_audio"),
        ((503, "application/json", TORCHSERVE_S_OWN), [4, 9], Outcome.BUSY, "5 steps were taken meanwhile"),
        ((503, "application/json", TORCHSERVE_S_OWN), [4, 4], Outcome.FAILED, "503 without a code"),
        ((None, "", b""), [4, 9], Outcome.BUSY, "RemoteDisconnected, but 5 steps"),
        ((None, "", b""), [4, 4], Outcome.FAILED, "RemoteDisconnected"),
    ],
)
def test_a_canary_is_judged_by_its_answer(answer, steps, outcome, words):
    with handler_that_says(*answer) as server:
        url = f"http://127.0.0.1:{server.server_port}/predictions/voicestyle"
        counts = iter(steps)
        judged, said = Canary(url, b"RIFF", 32, lambda: next(counts)).send()
    assert judged is outcome
    assert words in said
    path, headers, body = server.seen[0]
    assert (path, body) == ("/predictions/voicestyle", b"RIFF")
    assert (headers["X-VoiceStyle-Steps"], headers["X-VoiceStyle-Size"]) == ("1", "32")


@pytest.mark.parametrize(("steps", "outcome"), [([0, 0], Outcome.FAILED), ([0, 3], Outcome.BUSY)])
def test_a_canary_without_an_answer_in_its_time(steps, outcome):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        counts = iter(steps)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/predictions/voicestyle"
        judged, said = Canary(url, b"RIFF", 32, lambda: next(counts), seconds=0.05).send()
    assert judged is outcome
    assert "no answer within 0 s: TimeoutError" in said


def test_the_canary_suits_the_archive(tiny_archive):
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


# the port


def fetch(port, path, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@pytest.fixture
def port():
    def broken():
        raise RuntimeError("a fault")

    pages = {
        "/ready": lambda: json_page(False, {"ok": False}),
        "/metrics": lambda: (HTTPStatus.OK, "text/plain", b"x 1\n"),
        "/broken": broken,
    }
    with serve_pages("127.0.0.1", 0, pages) as port:
        yield port


def test_pages_are_served(port):
    status, headers, body = fetch(port, "/ready?verbose")
    assert (status, headers["Content-Type"], json.loads(body)) == (503, "application/json", {"ok": False})
    assert fetch(port, "/metrics")[2] == b"x 1\n"
    status, headers, body = fetch(port, "/metrics", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "4", b"")
    assert "Python" not in headers["Server"]


def test_other_paths_methods_and_faults(port, caplog):
    status, _, body = fetch(port, "/models")
    assert (status, body) == (404, b"the paths are /ready, /metrics, /broken\n")
    assert fetch(port, "/ready", "POST")[0] == 501
    assert fetch(port, "/broken")[0] == 500
    assert "/broken failed" in caplog.text
    assert "a fault" in caplog.text


def test_a_silent_client_holds_up_neither_others_nor_the_end():
    with serve_pages("127.0.0.1", 0, {"/live": lambda: json_page(True, {})}) as port:
        silent = socket.create_connection(("127.0.0.1", port))
        assert fetch(port, "/live")[0] == 200
    silent.close()


def test_a_taken_port_is_an_error(port):
    with (
        pytest.raises(ServerError, match=f"cannot listen on port {port} of 127.0.0.1"),
        serve_pages("127.0.0.1", port, {}),
    ):
        pass


# what is shared with the workers


def test_the_run_folder_is_new_and_told_through_the_environment(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    assert run.environment() == {
        "VOICESTYLE_RUN": str(tmp_path / "run"),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "run" / "metrics"),
    }
    assert run.metrics.is_dir()
    assert not run.draining
    run.begin_drain()
    assert run.draining
    assert (tmp_path / "run" / "drain").exists()
    with pytest.raises(FileExistsError):
        RunFolder.create(tmp_path / "run")


def test_bytes_that_a_client_did_not_fetch_are_seen():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            ours, _ = listening.accept()
            with ours:
                assert unsent_bytes([port]) == 0
                ours.setblocking(False)
                with suppress(BlockingIOError):
                    while True:
                        ours.send(bytes(1 << 20))
                assert unsent_bytes([port]) > 0
                assert unsent_bytes([port + 1]) == 0
                client.settimeout(5)
                while unsent_bytes([port]):
                    client.recv(1 << 20)


def test_without_linux_s_tables_nothing_is_unsent(tmp_path):
    assert unsent_bytes([8080], [tmp_path / "none"]) == 0
