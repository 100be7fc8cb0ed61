"""A device that fails in a real worker: nobody loses a face who retries, and another worker takes over."""

import struct
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.tiny_service import Service, poisoned_parts
from voicestyle.archive import build_archive
from voicestyle.bundle import write_bundle
from voicestyle.client import Client, retry
from voicestyle.serving import TorchServe

pytestmark = pytest.mark.serving

STEPS = 500


@pytest.fixture
def armed(tmp_path):
    """A file with the number that decides whether the generator fails."""
    path = tmp_path / "armed"
    path.write_bytes(struct.pack("f", 0.0))
    return path


@pytest.fixture
def service(armed, tmp_path, samples, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_bundle(tmp_path / "poisoned", **poisoned_parts(armed))
    (tmp_path / "store").mkdir()
    archive = build_archive(tmp_path / "poisoned", tmp_path / "store" / "voicestyle.mar")
    with httpx.Client(timeout=120, trust_env=False) as client, TorchServe(archive) as running:
        yield Service(running, client, (samples / "slt.wav").read_bytes())


def test_clients_that_retry_get_their_faces_from_the_next_worker(service, armed, monkeypatch):
    monkeypatch.setattr(retry, "MAX_DELAY", 1.0)
    url = service.server.url.removesuffix(service.path)
    with Client(url, timeout=60, max_retries=29) as client, ThreadPoolExecutor(4) as pool:
        expected = client.generate(service.voice, steps=2, size=32)
        (first,) = service.pids
        with service.stream(steps=STEPS, size=32) as beside:
            assert next(beside)["event"] == "started"
            with service.admitting(2):
                running = [pool.submit(client.generate, service.voice, steps=STEPS, size=32, seed=n) for n in range(2)]
            armed.write_bytes(struct.pack("f", 1.0))
            face = client.generate(service.voice, preset="instant", steps=0, size=32)
            *_, last = beside
        assert (last["event"], last["error"]["code"]) == ("error", "device_failed")
        assert face.image
        assert all(request.result(timeout=120).image for request in running)
        service.wait_until(lambda: len(service.pids) == 1)
        assert service.pids != [first]
        assert client.generate(service.voice, steps=2, size=32).image == expected.image
    assert struct.unpack("f", armed.read_bytes()) == (0.0,)
    service.wait_until(lambda: service.in_flight == 0)
    assert service.metric("voicestyle_requests_total", outcome="failed") == 4
    assert service.metric("voicestyle_requests_total", outcome="face") == 5
    assert service.metric("voicestyle_requests_total", outcome="refused") == 0
    assert service.metric("voicestyle_received_total") == 9
    assert service.metric("voicestyle_worker_starts_total") == 2
    assert service.log.count("the device failed, so this worker ends") == 1
    assert "CUDA error: an illegal memory access" in service.log
