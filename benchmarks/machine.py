"""What a number was measured on: commit, device, versions, and what the device can do at best."""

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import torch

from voicestyle.archive import ROOT

MATRIX_SIZE = 2048
MATRIX_RUNS = 8
MIB = 2**20


@dataclass(frozen=True)
class Machine:
    """Stands in every row. load_average: of the last minute when the measurement began; 0 on a quiet machine."""

    commit: str
    date: str
    device: str
    device_name: str
    cores: int
    threads: int
    torch: str
    python: str
    load_average: float

    @classmethod
    def here(cls, device: torch.device) -> "Machine":
        """This machine, this moment."""
        gpu = device.type == "cuda"
        return cls(
            commit=_commit(),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            device=device.type,
            device_name=torch.cuda.get_device_name(device) if gpu else _cpu_name(),
            cores=len(os.sched_getaffinity(0)),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            python=platform.python_version(),
            load_average=os.getloadavg()[0],
        )


def matmul_gflops(device: torch.device, dtype: torch.dtype) -> float:
    """10⁹ operations a second in a product of two 2048² matrices, the best of several."""
    a, b = (torch.randn(MATRIX_SIZE, MATRIX_SIZE).to(device, dtype) for _ in range(2))
    best = float("inf")
    for _ in range(MATRIX_RUNS):
        began = now(device)
        a @ b
        best = min(best, now(device) - began)
    return 2 * MATRIX_SIZE**3 / best / 1e9


def now(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


def peak_resident_mib() -> float:
    """This process's most resident memory so far, in MiB. Not `ru_maxrss`, which starts at its parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def peak_cuda_mib(device: torch.device) -> float | None:
    """Most memory that tensors had on the GPU, in MiB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else None


def _commit() -> str:
    """The commit's first twelve digits, with a plus where the tree differs from it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return f"{head}+" if _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
