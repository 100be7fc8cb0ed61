"""Run shards on one machine: in this process, or in worker processes.

An executor takes tasks and yields the number and the content of each finished shard. The process that holds the
folder's lock writes them, so that workers never touch the folder.
"""

import multiprocessing as mp
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from pathlib import Path

import torch

from voicestyle.bank_builder.errors import BankError
from voicestyle.bank_builder.shard_task import ShardTask, Tools, run_shard

OpenTools = Callable[[Mapping[str, Path]], Tools]


@dataclass(frozen=True)
class Toolbox:
    """How a process gets its tools.

    open_tools: a function that can be pickled; it gets the paths of `files`, the weight files by name. threads: of
    torch in each process; the rounding of a sum depends on them.
    """

    open_tools: OpenTools
    files: Mapping[str, Path]
    threads: int = 1

    def open(self) -> Tools:
        """Read the files and make the tools."""
        return self.open_tools(self.files)


@contextmanager
def torch_threads(count: int) -> Generator[None]:
    """Let torch use `count` threads in this process, for the tools as well as for the shards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_here(tasks: Iterable[ShardTask], tools: Tools, on_result: Callable[[], None]) -> Iterator[tuple[int, bytes]]:
    """Run the tasks in this process, one after the other. on_result: called for every photograph."""
    for task in tasks:
        yield task.number, run_shard(task, tools, on_result)


def run_in_processes(tasks: Iterable[ShardTask], toolbox: Toolbox, workers: int) -> Iterator[tuple[int, bytes]]:
    """Run the tasks in `workers` processes.

    The processes end with this one, however it ends. Raises BankError if one of them dies.
    """
    waiting = iter(tasks)
    pool = ProcessPoolExecutor(workers, mp.get_context("spawn"), _start_worker, (toolbox,))
    try:
        running: set[Future[tuple[int, bytes]]] = set()
        while True:
            # Not all at once: a task holds the paths of its files, and there may be many tasks.
            while len(running) < 2 * workers and (task := next(waiting, None)) is not None:
                running.add(pool.submit(_run_in_worker, task))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise BankError(
            f"worker processes must live until the end, one of {workers} was killed, perhaps because memory ran out; "
            "run again, with fewer --workers, to continue"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_tools: Tools | None = None


def _start_worker(toolbox: Toolbox) -> None:
    global _tools
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(toolbox.threads)
    _tools = toolbox.open()


def _end_with_parent() -> None:
    """A worker of a killed process would wait for tasks for ever."""
    parent = mp.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _run_in_worker(task: ShardTask) -> tuple[int, bytes]:
    if _tools is None:
        raise RuntimeError("the worker has no tools")
    return task.number, run_shard(task, _tools)
