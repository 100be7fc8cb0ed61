"""Starting and stopping a real TorchServe, with a bundle that loads quickly."""

import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import nullcontext
from types import SimpleNamespace

import httpx
import psutil
import pytest

from voicestyle.archive import HANDLER
from voicestyle.engine.capacity import SIZES
from voicestyle.errors import ServerError
from voicestyle.run_folder import RunFolder
from voicestyle.serving import Ports, TorchServe, stop_on_signals
from voicestyle.serving.metrics_endpoint import exposition
from voicestyle.serving.server import CONFIG, read_properties

SERVE = """
import sys
from pathlib import Path
from voicestyle.serving import Ports, serve
ready = lambda server: print("ready", server.pid, *server.worker_pids(), flush=True)
sys.exit(serve(Path(sys.argv[1]), ports=Ports.free(), on_ready=ready))
"""


def wait_until_gone(pids, seconds=10):
    end = time.monotonic() + seconds
    while alive := [pid for pid in pids if psutil.pid_exists(pid)]:
        assert time.monotonic() < end, f"processes {alive} still run"
        time.sleep(0.1)


def test_ports_are_validated():
    with pytest.raises(ValueError, match="distinct"):
        Ports(inference=7071)
    with pytest.raises(ValueError, match="between 1 and 65535"):
        Ports(inference=0)
    assert len(set(vars(Ports.free()).values())) == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_runs_the_cleanup_of_the_block(number):
    before = signal.getsignal(number)
    cleaned_up = []

    def work():
        with stop_on_signals():
            try:
                os.kill(os.getpid(), number)
                time.sleep(5)
            finally:
                os.kill(os.getpid(), number)  # a second signal does not interrupt the cleanup
                cleaned_up.append(True)

    with pytest.raises(SystemExit) as ended:
        work()
    assert (ended.value.code, cleaned_up) == (128 + number, [True])
    assert signal.getsignal(number) is before


def test_a_missing_archive_is_an_error(tmp_path):
    with pytest.raises(ServerError, match=r"none\.mar is missing"), TorchServe(tmp_path / "none.mar"):
        pass


def test_a_port_in_use_is_an_error(tiny_archive):
    ports = Ports.free()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.management))
        taken.listen()
        with pytest.raises(ServerError, match=f"port {ports.management}"), TorchServe(tiny_archive, ports=ports):
            pass


def test_the_configuration_disables_unsafe_features():
    properties = read_properties(CONFIG)
    for connector in ("inference", "management", "metrics"):
        assert properties[f"{connector}_address"].startswith("http://127.0.0.1:")
    assert properties["grpc_inference_address"] == properties["grpc_management_address"] == "127.0.0.1"
    assert properties["enable_model_api"] == "false"
    assert "http" not in properties["allowed_urls"]
    # A full batch of faces of 1024 pixels with any content, in base64, fits into a response.
    assert int(properties["max_response_size"]) > SIZES[-1] * 3 * 1024 * 1024 * 1.01 * 4 / 3


class Workers:
    """Stands for the management API: the worker that starts at each look, and the one that is ready in the end."""

    def __init__(self, starting, ready):
        self.looks = iter([{"pid": pid, "status": "UNLOADED"} for pid in starting])
        self.ready = ready
        self.starting = None

    def worker_pids(self):
        self.starting = next(self.looks, None)
        return [self.ready] if self.starting is None else []

    def workers(self):
        return [self.starting]


@pytest.mark.parametrize(
    ("starting", "failed", "is_ready"),
    [
        ([1, 1], False, True),
        ([1, 2], False, False),
        ([1, 2, 2], True, True),
        ([1, 2, 3], True, False),
    ],
)
def test_one_more_worker_may_start_after_one_that_could_not_capture(
    tiny_archive, tmp_path, monkeypatch, starting, failed, is_ready
):
    monkeypatch.setattr("voicestyle.serving.server.time.sleep", lambda _: None)
    server = TorchServe(tiny_archive)
    server._java, server._run = SimpleNamespace(poll=lambda: None), RunFolder.create(tmp_path / "run")
    server.management = Workers(starting, ready=starting[-1])
    if failed:
        server.run.report_graphs_failed("no memory")
    with nullcontext() if is_ready else pytest.raises(ServerError, match="ended before the model was ready"):
        server._await_ready()


FAILS_TO_CAPTURE = """

load = Pipeline.load


def load_without_graphs(*arguments, graphs, **options):
    from voicestyle.errors import CaptureError

    if graphs == "on":
        raise CaptureError("a step could not be captured as a CUDA graph: simulated")
    return load(*arguments, graphs=graphs, **options)


Pipeline.load = load_without_graphs
"""


@pytest.fixture
def archive_that_fails_to_capture(tiny_archive, tmp_path):
    """Its handler is the real one, but on this CPU a load that would capture fails as on a GPU without memory."""
    path = tmp_path / "voicestyle.mar"
    with zipfile.ZipFile(tiny_archive) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + (FAILS_TO_CAPTURE.encode() if name == HANDLER.name else b""))
    return path


@pytest.mark.serving
def test_a_worker_that_cannot_capture_is_replaced_by_one_without_graphs(archive_that_fails_to_capture, samples):
    with TorchServe(archive_that_fails_to_capture) as server:
        assert server.run.graphs_failed.endswith("simulated")
        voice = (samples / "slt.wav").read_bytes()
        response = httpx.post(server.url, content=voice, headers={"Content-Type": "audio/wav"}, trust_env=False)
        assert response.status_code == 200
        metrics = exposition(server.run.metrics, server.worker_pids()).decode()
        log = server.log()
    assert 'graphs="failed"' in metrics
    assert "simulated; the next worker serves without graphs" in log
    assert "this worker runs without CUDA graphs" in log


@pytest.mark.serving
def test_a_bundle_that_fails_to_load_is_reported(tiny_archive, tmp_path):
    broken = tmp_path / "voicestyle.mar"
    with zipfile.ZipFile(tiny_archive) as old, zipfile.ZipFile(broken, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"something else" if name == "bundle/latent_bank.npy" else old.read(name))
    server = TorchServe(broken)
    with pytest.raises(ServerError, match=r"(?s)before the model was ready.*latent_bank\.npy was altered"), server:
        pass
    wait_until_gone([server.pid])


@pytest.mark.serving
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_serve_leaves_no_process_and_no_folder(tiny_archive, tmp_path, number, status):
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tiny_archive)], env=environment, stdout=subprocess.PIPE, text=True
    ) as serving:
        try:
            pids = next(line.split()[1:] for line in serving.stdout if line.startswith("ready "))
            assert len(pids) == 2
            serving.send_signal(number)
            assert serving.wait(30) == status
        finally:
            serving.kill()
    wait_until_gone([int(pid) for pid in pids], seconds=30)
    if number != signal.SIGKILL:
        assert not list(tmp_path.glob("voicestyle-*"))
