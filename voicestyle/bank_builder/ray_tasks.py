"""Run shards on a Ray cluster (https://docs.ray.io), with the same shard function.

Nothing is shared but Ray: contents of photographs and weight files travel to the nodes, results travel back to the
driver, and the driver alone writes to the folder. So no node needs the photographs, the output folder or a shared file
system. A task of a lost node runs again on another one.
"""

import hashlib
import os
import socket
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from voicestyle.bank_builder.errors import BankError
from voicestyle.bank_builder.executors import OpenTools, Toolbox
from voicestyle.bank_builder.shard_task import ShardTask, Tools, run_shard

LOCAL = "local"
# Off, a node's address is 127.0.0.1, and all its servers listen there alone. On, which is the default on Linux, they
# listen on all interfaces; `_node_ip_address="127.0.0.1"` does not change that.
CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
STATISTICS = "RAY_USAGE_STATS_ENABLED"  # Ray sends them to its makers unless this is 0
CONNECT_SECONDS = 10
RETRIES = 5  # of a shard whose node or process is lost
SPARE_TASKS = 2  # submitted beyond the cluster's slots, so that no slot waits for the driver


def run_on_ray(
    tasks: Iterable[ShardTask], toolbox: Toolbox, address: str, workers: int, gpus: int
) -> Iterator[tuple[int, bytes]]:
    """Run the tasks on the cluster at `address`, or on a cluster of this machine alone if it is `local`.

    workers: processes of a local cluster; another cluster runs as many as it has cores or GPUs for. gpus: of a task.

    Raises BankError if Ray is not installed, the cluster cannot be reached, or a shard was lost `RETRIES` times; and
    what the shard function raises.
    """
    os.environ[STATISTICS] = "0"
    if address == LOCAL:
        os.environ[CLUSTERS] = "0"
    ray = _import_ray()
    with _connected(ray, address, workers * toolbox.threads):
        # num_cpus counts the threads of a task.
        remote = ray.remote(num_cpus=toolbox.threads, num_gpus=gpus, max_retries=RETRIES)(_run_on_node)
        files = {name: ray.put(path.read_bytes()) for name, path in toolbox.files.items()}
        key = hashlib.sha256(repr(sorted((name, ref.hex()) for name, ref in files.items())).encode()).hexdigest()
        open_tools = ray.put(toolbox.open_tools)
        waiting = iter(tasks)
        running: dict[Any, int] = {}
        while True:
            slots = _slots(ray.cluster_resources(), toolbox.threads, gpus)
            while len(running) < slots + SPARE_TASKS and (task := next(waiting, None)) is not None:
                reference = remote.remote(key, open_tools, [files], toolbox.threads, task.with_contents())
                running[reference] = task.number
            if not running:
                return
            done, _ = ray.wait(list(running))
            for reference in done:
                number = running.pop(reference)
                try:
                    yield number, ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    # The shard function's own error; Ray's has the traceback on the node.
                    raise error.cause from error
                except ray.exceptions.RayError as error:
                    raise BankError(
                        f"a shard may be lost with its node {RETRIES} times, shard {number} was lost more often "
                        f"({type(error).__name__}); run again to continue"
                    ) from error


def _slots(resources: Mapping[str, float], threads: int, gpus: int) -> int:
    """How many tasks the cluster runs at once."""
    by_cpu = int(resources.get("CPU", 0) // threads)
    return min(by_cpu, int(resources.get("GPU", 0) // gpus)) if gpus else by_cpu


_opened: tuple[str, Tools] | None = None


def _run_on_node(
    key: str, open_tools: OpenTools, files: list[Mapping[str, Any]], threads: int, task: ShardTask
) -> bytes:
    """The shard function in a process of a node, which keeps its tools for the next task of the same build."""
    global _opened
    torch.set_num_threads(threads)
    if _opened is None or _opened[0] != key:
        _opened = None  # the memory of another build's tools
        _opened = (key, _open_on_node(open_tools, files[0]))
    return run_shard(task, _opened[1])


def _open_on_node(open_tools: OpenTools, files: Mapping[str, Any]) -> Tools:
    ray = _import_ray()
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / name for name in files}
        for name, path in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(ray.get(files[name]))
        return open_tools(paths)


@contextmanager
def _connected(ray: Any, address: str, cpus: int) -> Generator[None]:
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address}
    if address == LOCAL:
        options |= {"num_cpus": cpus, "include_dashboard": False}
    else:
        _check_reachable(address)
    try:
        ray.init(**options, logging_level="WARNING", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise BankError(f"--ray must be local or the address of a running cluster, got {address}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise BankError for a HOST:PORT where nothing listens; Ray would retry for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdigit():
        return  # auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise BankError(f"--ray must be local or the address of a running cluster, got {address}: {error}") from error


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise BankError("a build on Ray needs the extra ray: pip install 'voicestyle[ray]'") from error
    return ray
