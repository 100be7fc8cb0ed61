"""A device fails under a real TorchServe: the worker ends, and clients that retry get their faces from the next."""

import inspect
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import poisoned_worker
from tests.support.serve_process import running, until
from voicestyle.client import Client, Face, GrpcClient, Retrying, retry

pytestmark = pytest.mark.serving

LONG = {"steps": 500, "size": 32}  # a second or more


@pytest.fixture
def poisoned_archive(fragile_archive, tmp_path):
    """A copy of the archive with tests/support/poisoned_worker.py at the end of its handler."""
    target = tmp_path / "voicestyle.mar"
    with zipfile.ZipFile(fragile_archive) as source, zipfile.ZipFile(target, "w") as out:
        for each in source.infolist():
            content = source.read(each)
            if each.filename == "voicestyle_handler.py":
                content += f"\n\n{inspect.getsource(poisoned_worker)}\ninstall()\n".encode()
            out.writestr(each, content)
    return target


def test_clients_get_their_faces_from_the_next_worker(poisoned_archive, samples, tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "MAX_DELAY", 1.0)
    voice = (samples / "slt.wav").read_bytes()
    folder = tmp_path / "run"  # TMPDIR of the worker
    folder.mkdir()
    limits = {"timeout": 60, "max_retries": 99}
    with running(poisoned_archive, folder) as service, ThreadPoolExecutor(2) as pool:
        http_url, grpc_address = service.url.partition("/predictions")[0], f"127.0.0.1:{service.ports.grpc_inference}"
        with Client(http_url, **limits) as http, GrpcClient(grpc_address, **limits) as grpc:
            service.await_ready()
            first_worker = service.pids()[-1]
            streamed = pool.submit(lambda: list(http.stream(voice, previews=1, seed=1, **LONG)))
            over_grpc = pool.submit(grpc.generate, voice, seed=2, **LONG)
            until(lambda: service.metric("voicestyle_live_requests") == 2, "two live requests")
            (folder / poisoned_worker.POISON).touch()
            failing = list(http.stream(voice, steps=2, size=32, seed=poisoned_worker.POISONED_SEED))
            for events in (failing, streamed.result(timeout=120)):
                assert isinstance(events[-1], Face)
                errors = [event.error.code for event in events if isinstance(event, Retrying)]
                assert errors.count("device_failed") == 1
                assert errors[0] == "device_failed"
            assert over_grpc.result(timeout=120).seed == 2
            assert next(event for event in failing if isinstance(event, Retrying)).error.retry_after >= 1

        service.await_ready()
        assert service.pids()[-1] != first_worker
        assert service.metric("voicestyle_worker_starts_total") == 2

        def completed(**labels):
            return service.metric("voicestyle_requests_total", **labels)

        faces, failed = (service.metric("voicestyle_canaries_total", outcome=name) for name in ("answered", "failed"))
        assert completed(outcome="face") == 3 + faces
        assert completed(outcome="failed", protocol="grpc") == 1
        assert 2 <= completed(outcome="failed", protocol="http") <= 2 + failed
        # None was lost with its worker.
        assert service.metric("voicestyle_received_total") == completed()
        assert service.log().count("the device failed, so this worker ends") == 1
