"""How long a start takes: a worker's start by stages, then TorchServe until it is ready, and its first faces.

    python -m benchmarks.cold_start

`stages` runs in a new process whose start is measured, so this module imports only the standard library at its top.
"""

import argparse
import importlib
import os
import tempfile
import time
import zipfile
from itertools import pairwise
from pathlib import Path

BEGAN = time.time()


def stages(bundle: str, started: float) -> dict[str, float]:
    """Import, load and warm up as the handler does; seconds of each stage.

    started: when this process was started, in seconds since the epoch.
    """
    marks = [("interpreter", started), ("torch", BEGAN)]
    import torch

    marks.append(("other imports", time.time()))
    importlib.import_module("handlers.voicestyle_handler")
    from voicestyle.pipeline import Pipeline

    marks.append(("load", time.time()))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    warm_up = Pipeline.warm_up

    def timed(self: Pipeline) -> None:
        marks.append(("warm-up", time.time()))
        warm_up(self)

    Pipeline.warm_up = timed
    Pipeline.load(Path(bundle))
    marks.append(("", time.time()))
    return {name: after - at for (name, at), (_, after) in pairwise(marks)}


def measure_stages(archive: Path) -> dict[str, float]:
    """Measure the stages of a worker's start in a new process, without TorchServe."""
    from benchmarks.results import run_process
    from voicestyle.serving.server import WORKER

    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as source:
            source.extractall(folder, [name for name in source.namelist() if name.startswith("bundle/")])
        return run_process("benchmarks.cold_start", "stages", WORKER, bundle=f"{folder}/bundle", started=time.time())


def measure_torchserve(archive: Path, steps: int, size: int) -> dict[str, float]:
    """Measure from the start of TorchServe until its worker is ready, and then its first two faces."""
    from benchmarks.networks import VOICES
    from voicestyle.client import Client
    from voicestyle.serving import TorchServe

    marks = [("ready", time.perf_counter())]
    with TorchServe(archive) as server, Client(f"http://127.0.0.1:{server.ports.inference}", max_retries=0) as client:
        for name in ("first face", "second face"):
            marks.append((name, time.perf_counter()))
            client.generate(VOICES[0], seed=0, steps=steps, size=size)
        marks.append(("", time.perf_counter()))
    return {name: after - at for (name, at), (_, after) in pairwise(marks)}


def main() -> None:
    """Measure both kinds of start in turn, and write and print a row."""
    from benchmarks.results import ARCHIVE, RESULTS, append, machine, spread
    from benchmarks.tables import cold_start_table
    from voicestyle.serving import stop_on_signals

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=ARCHIVE)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--size", type=int, default=256, help="pixels a side")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder; the row is appended")
    given = parser.parse_args()
    here = machine()
    with stop_on_signals():
        runs = [
            (measure_stages(given.archive), measure_torchserve(given.archive, given.steps, given.size))
            for _ in range(given.repeats)
        ]
    worker, torchserve = zip(*runs, strict=True)
    row = {
        "benchmark": "cold start",
        "repeats": given.repeats,
        "stages": {name: spread(each[name] for each in worker) for name in worker[0]},
        "stages_total": spread(sum(each.values()) for each in worker),
        "torchserve": {name: spread(each[name] for each in torchserve) for name in torchserve[0]},
        "steps": given.steps,
        "size": given.size,
        "machine": here,
    }
    append(given.results / "cold_start.jsonl", [row])
    print(cold_start_table([row]))


if __name__ == "__main__":
    main()
