"""`voicestyle serve` as a process of its own, with a real TorchServe."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import httpx
import psutil
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
SECONDS = 300  # timeout of every wait
OCTETS = {"Content-Type": "application/octet-stream"}


def until(condition, name):
    end = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < end, f"timeout after {SECONDS} s: {name}"
        time.sleep(0.05)
    return value


class Service:
    """A running `voicestyle serve`, its probes and metrics."""

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

    def succeeds(self, name):
        response = self.probe(name)
        return response is not None and response.status_code == 200

    def await_ready(self):
        def ready():
            assert self.process.poll() is None, self.log()
            return self.succeeds("ready")

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
