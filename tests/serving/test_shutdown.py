"""`voicestyle serve` as a process with a real TorchServe: probes, restarts and shutdown."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.support.serve_process import SECONDS, running, until

pytestmark = pytest.mark.serving


@pytest.fixture(scope="session")
def demo_archive(demo_bundle, tmp_path_factory):
    from voicestyle.archive import build_archive

    return build_archive(demo_bundle, tmp_path_factory.mktemp("drain") / "voicestyle.mar")


def test_sigterm_finishes_three_requests_in_flight(demo_archive, samples, tmp_path):
    voice = (samples / "slt.wav").read_bytes()
    with running(demo_archive, tmp_path) as service, ThreadPoolExecutor(3) as pool:
        service.await_ready()
        pids = service.pids()
        options = ({}, {"output": "json"}, {"previews": 2})
        responses = [pool.submit(service.ask, voice, steps=5, size=256, seed=i, **o) for i, o in enumerate(options)]
        until(lambda: service.metric("voicestyle_live_requests") == 3, "three requests in the batch")
        service.process.send_signal(signal.SIGTERM)

        until(lambda: list(tmp_path.glob("voicestyle-*/run/drain")), "the drain flag")
        rejected = service.ask(voice, steps=1, size=256)
        assert rejected.status_code == 503
        assert rejected.json()["error"]["code"] == "draining"
        assert int(rejected.headers["Retry-After"]) >= 1
        probe = service.probe("ready")
        assert probe.status_code == 503
        assert probe.json()["conditions"]["admission"] == "the service is shutting down"
        assert service.probe("live").status_code == 200

        image, document, stream = (response.result() for response in responses)
        assert (image.status_code, image.content[:4]) == (200, b"\x89PNG")
        assert (document.status_code, document.json()["steps"]) == (200, 5)
        lines = [json.loads(line) for line in stream.text.splitlines()]
        assert lines[-1]["event"] == "result"
        assert service.process.wait(SECONDS) == 0
        assert "all requests are finished" in service.log()
        assert not psutil.pid_exists(pids[0])
        assert not list(tmp_path.glob("voicestyle-*"))


def test_a_second_signal_ends_the_drain_early(demo_archive, samples, tmp_path):
    voice = (samples / "slt.wav").read_bytes()
    with running(demo_archive, tmp_path) as service, ThreadPoolExecutor(1) as pool:
        service.await_ready()
        pids = service.pids()
        response = pool.submit(service.ask, voice, steps=500, size=256)
        until(lambda: service.metric("voicestyle_live_requests") == 1, "a request in the batch")
        service.process.send_signal(signal.SIGTERM)
        until(lambda: list(tmp_path.glob("voicestyle-*/run/drain")), "the drain flag")
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(SECONDS) == 128 + signal.SIGINT
        assert response.exception() is not None or response.result().is_server_error
        until(lambda: not any(map(psutil.pid_exists, pids)), "the end of java and its worker")


def test_readiness_follows_worker_and_java_deaths(tiny_archive, tmp_path):
    with running(tiny_archive, tmp_path) as service:
        until(lambda: service.succeeds("live"), "liveness")
        service.await_ready()
        java, worker = service.pids()
        assert service.metric("voicestyle_ready") == 1
        (described,) = service.probe("ready").json()["workers"]
        assert (described["device"], described["capacity"], described["graphs"]) == ("cpu", 8, "off")
        assert described.keys() == {"model", "bundle_version", "device", "dtype", "batching", "graphs", "capacity"}
        assert service.metric("voicestyle_canaries_total", outcome="answered") == 1
        assert service.metric("voicestyle_requests_total", outcome="face", protocol="http") == 1

        psutil.Process(worker).kill()
        body = until(lambda: (r := service.probe("ready")).status_code == 503 and r.json(), "the end of readiness")
        assert body["conditions"]["model"] == "no running worker has the model loaded"
        assert body["workers"] == []
        assert service.probe("live").status_code == 200
        service.await_ready()
        assert worker not in service.pids()
        assert service.metric("voicestyle_canaries_total", outcome="answered") == 2
        assert service.metric("voicestyle_requests_total", outcome="face", protocol="http") == 2

        psutil.Process(java).kill()
        assert service.process.wait(SECONDS) == 2
        assert "TorchServe ended by itself with status -9" in service.log()
        assert not list(tmp_path.glob("voicestyle-*"))


def test_sigterm_during_the_start_ends_with_0(tiny_archive, tmp_path):
    with running(tiny_archive, tmp_path) as service:
        pids = until(service.pids, "java's start")
        assert not service.succeeds("ready")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(SECONDS) == 0
        until(lambda: not any(map(psutil.pid_exists, pids)), "the end of java")
        assert not list(tmp_path.glob("voicestyle-*"))


def test_only_the_inference_ports_can_be_opened(tiny_archive, tmp_path, monkeypatch):
    from voicestyle.serving import TorchServe

    monkeypatch.setenv("TS_OPEN_INFERENCE_PROTOCOL", "oip")
    with TorchServe(tiny_archive, host="0.0.0.0") as server:
        assert server.url.startswith("http://127.0.0.1:")
        listening = {
            c.laddr.port: c.laddr.ip for c in psutil.Process(server.pid).net_connections() if c.status == "LISTEN"
        }
        public = {port for port, address in listening.items() if address in ("0.0.0.0", "::")}
        assert public == {server.ports.inference, server.ports.grpc_inference}
        assert {server.ports.management, server.ports.metrics, server.ports.grpc_management} <= set(listening) - public
        environment = psutil.Process(server.worker_pids()[0]).environ()
        assert "TS_OPEN_INFERENCE_PROTOCOL" not in environment
        assert environment["VOICESTYLE_RUN"] == str(server.run.path)
        assert environment["PROMETHEUS_MULTIPROC_DIR"] == str(server.run.metrics)
