"""`voicestyle serve` as one process, on a real TorchServe: its probes, its restarts and its end."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from voicestyle.serving import Ports

SERVE = """
import logging, sys
from pathlib import Path
from voicestyle.cli.main import EXPECTED
from voicestyle.serving import DrainOptions, Ports, serve
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s serve %(message)s")
ready = lambda server: print("ready", server.pid, *server.worker_pids(), flush=True)
try:
    ports = Ports(*map(int, sys.argv[2:]))
    sys.exit(serve(Path(sys.argv[1]), ports=ports, draining=DrainOptions(seconds=300), on_ready=ready))
except EXPECTED as error:
    print(f"voicestyle: {error}", flush=True)
    sys.exit(2)
"""
SECONDS = 300  # that anything here may take; a test that reaches it fails
OCTETS = {"Content-Type": "application/octet-stream"}

pytestmark = pytest.mark.serving


def until(holds, what):
    end = time.monotonic() + SECONDS
    while not (value := holds()):
        assert time.monotonic() < end, f"{what} did not come true in {SECONDS} s"
        time.sleep(0.05)
    return value


class Service:
    """A running `voicestyle serve`: its probes, as an orchestrator sees them."""

    def __init__(self, archive, folder):
        self.ports = Ports.free()
        self.url = f"http://127.0.0.1:{self.ports.inference}/predictions/voicestyle"
        self.folder = folder
        numbers = map(str, vars(self.ports).values())
        self.log_file = folder / "serve.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(archive), *numbers],
                env=os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "2"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log(self):
        return self.log_file.read_text()

    def probe(self, name):
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.ports.operations}/{name}", timeout=10, trust_env=False)
        return None

    def holds(self, name):
        answer = self.probe(name)
        return answer is not None and answer.status_code == 200

    def await_ready(self):
        def ready():
            assert self.process.poll() is None, self.log()
            return self.holds("ready")

        until(ready, "readiness")

    def pids(self):
        """Of java and its workers."""
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]

    def metric(self, name, **labels):
        families = text_string_to_metric_families(self.probe("metrics").text)
        samples = [sample for family in families for sample in family.samples]
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def ask(self, voice, **options):
        headers = OCTETS | {f"X-VoiceStyle-{name}": str(value) for name, value in options.items()}
        return httpx.post(self.url, content=voice, headers=headers, timeout=SECONDS, trust_env=False)


@contextmanager
def running(archive, folder):
    service = Service(archive, folder)
    try:
        yield service
    finally:
        with suppress(psutil.NoSuchProcess):
            service.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            service.process.wait(30)
        service.process.kill()
        service.process.wait()


@pytest.fixture(scope="session")
def demo_archive(demo_bundle, tmp_path_factory):
    from voicestyle.archive import build_archive

    return build_archive(demo_bundle, tmp_path_factory.mktemp("drain") / "voicestyle.mar")


def test_sigterm_with_three_requests_in_flight_answers_all_three(demo_archive, samples, tmp_path):
    voice = (samples / "slt.wav").read_bytes()
    with running(demo_archive, tmp_path) as service, ThreadPoolExecutor(3) as pool:
        service.await_ready()
        pids = service.pids()
        options = ({}, {"output": "json"}, {"previews": 2})
        answers = [pool.submit(service.ask, voice, steps=5, size=256, seed=i, **o) for i, o in enumerate(options)]
        until(lambda: service.metric("voicestyle_live_requests") == 3, "three requests in the batch")
        service.process.send_signal(signal.SIGTERM)

        until(lambda: list(tmp_path.glob("voicestyle-*/run/drain")), "the drain flag")
        newcomer = service.ask(voice, steps=1, size=256)
        assert newcomer.status_code == 503
        assert newcomer.json()["error"]["code"] == "draining"
        assert int(newcomer.headers["Retry-After"]) >= 1
        probe = service.probe("ready")
        assert probe.status_code == 503
        assert probe.json()["conditions"]["taking"] == "the service is stopping"
        assert service.probe("live").status_code == 200

        picture, document, stream = (answer.result() for answer in answers)
        assert (picture.status_code, picture.content[:4]) == (200, b"\x89PNG")
        assert (document.status_code, document.json()["steps"]) == (200, 5)
        lines = [json.loads(line) for line in stream.text.splitlines()]
        assert lines[-1]["event"] == "result"
        assert service.process.wait(SECONDS) == 0
        assert "all requests are answered" in service.log()
        assert not psutil.pid_exists(pids[0])
        assert not list(tmp_path.glob("voicestyle-*"))


def test_a_second_signal_cuts_the_finishing_short(demo_archive, samples, tmp_path):
    voice = (samples / "slt.wav").read_bytes()
    with running(demo_archive, tmp_path) as service, ThreadPoolExecutor(1) as pool:
        service.await_ready()
        pids = service.pids()
        answer = pool.submit(service.ask, voice, steps=500, size=256)
        until(lambda: service.metric("voicestyle_live_requests") == 1, "a request in the batch")
        service.process.send_signal(signal.SIGTERM)
        until(lambda: list(tmp_path.glob("voicestyle-*/run/drain")), "the drain flag")
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(SECONDS) == 128 + signal.SIGINT
        assert answer.exception() is not None or answer.result().is_server_error
        until(lambda: not any(map(psutil.pid_exists, pids)), "the end of java and its worker")


def test_a_worker_that_dies_costs_readiness_until_the_next_one_sang_and_java_s_death_ends_all(tiny_archive, tmp_path):
    with running(tiny_archive, tmp_path) as service:
        until(lambda: service.holds("live"), "liveness")
        service.await_ready()
        java, worker = service.pids()
        assert service.metric("voicestyle_ready") == 1
        assert service.metric("voicestyle_canaries_total", outcome="answered") == 1
        assert service.metric("voicestyle_requests_total", outcome="face", protocol="http") == 1

        psutil.Process(worker).kill()
        why = until(lambda: (a := service.probe("ready")).status_code == 503 and a.json(), "the end of readiness")
        assert why["conditions"]["model"] == "no living worker has the model loaded"
        assert service.probe("live").status_code == 200
        service.await_ready()
        assert worker not in service.pids()
        assert service.metric("voicestyle_canaries_total", outcome="answered") == 2
        assert service.metric("voicestyle_requests_total", outcome="face", protocol="http") == 2

        psutil.Process(java).kill()
        assert service.process.wait(SECONDS) == 2
        assert "TorchServe ended by itself with status -9" in service.log()
        assert not list(tmp_path.glob("voicestyle-*"))


def test_sigterm_while_it_starts_ends_it_in_order(tiny_archive, tmp_path):
    with running(tiny_archive, tmp_path) as service:
        pids = until(service.pids, "java's start")
        assert not service.holds("ready")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(SECONDS) == 0
        until(lambda: not any(map(psutil.pid_exists, pids)), "the end of java")
        assert not list(tmp_path.glob("voicestyle-*"))


def test_inference_may_listen_elsewhere_and_management_may_not(tiny_archive, tmp_path, monkeypatch):
    from voicestyle.serving import TorchServe

    monkeypatch.setenv("TS_OPEN_INFERENCE_PROTOCOL", "oip")
    with TorchServe(tiny_archive, host="0.0.0.0") as server:
        assert server.url.startswith("http://127.0.0.1:")
        listening = {
            c.laddr.port: c.laddr.ip for c in psutil.Process(server.pid).net_connections() if c.status == "LISTEN"
        }
        everywhere = {port for port, address in listening.items() if address in ("0.0.0.0", "::")}
        assert everywhere == {server.ports.inference, server.ports.grpc_inference}
        assert {server.ports.management, server.ports.metrics, server.ports.grpc_management} <= set(
            listening
        ) - everywhere
        environment = psutil.Process(server.worker_pids()[0]).environ()
        assert "TS_OPEN_INFERENCE_PROTOCOL" not in environment
        assert environment["VOICESTYLE_RUN"] == str(server.run.path)
        assert environment["PROMETHEUS_MULTIPROC_DIR"] == str(server.run.metrics)
