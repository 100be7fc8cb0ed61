"""Rows of results: what each one records of the machine, and the files of JSON lines that hold them."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "benchmarks" / "results"
ARCHIVE: Final = ROOT / "model_store" / "voicestyle.mar"
CODE: Final = ("*.py", "*.yaml", "pyproject.toml", "requirements.lock")  # what decides whether a commit was modified

Row = Mapping[str, Any]


class MeasurementError(Exception):
    """A measurement's process failed; the message is the last line of its error output."""


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, minimum and maximum of repeated measurements. Raises ValueError for no values."""
    values = list(values)
    return {name: significant(of(values)) for name, of in (("median", median), ("min", min), ("max", max))}


def significant(value: float, digits: int = 4) -> float:
    """Round to a number of significant digits."""
    return float(f"{value:.{digits}g}")


def append(path: Path, rows: Iterable[Row]) -> None:
    """Append rows to a file of JSON lines, which is created if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read(path: Path) -> list[Row]:
    """Return the rows of a file; none if the file is missing."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def machine(device: str = "cpu") -> dict[str, Any]:
    """Describe this machine for a row. load_average is that of the last minute, 0 on an idle machine."""
    on_gpu = device.startswith("cuda")
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.device(device).type,
        "device_name": torch.cuda.get_device_name(device) if on_gpu else _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def run_process(module: str, function: str, environment: Mapping[str, str], **arguments: object) -> dict[str, Any]:
    """Call `module.function(**arguments)` in a new process; arguments and result are passed as JSON.

    environment is added to this process's own. Raises MeasurementError for a process that failed.
    """
    code = f"import json, sys; from {module} import {function} as f; print(json.dumps(f(**json.loads(sys.argv[1]))))"
    command = [sys.executable, "-W", "ignore", "-c", code, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode < 0:
        raise MeasurementError(f"killed by signal {-done.returncode}")
    if done.returncode:
        raise MeasurementError(done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def _commit() -> str:
    """The first twelve digits of the commit; a plus sign follows if the code differs from it."""
    modified = _git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return _git("rev-parse", "--short=12", "HEAD") + ("+" if modified else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
