"""How long until a worker is ready: the stages of its start, and all of it on TorchServe with the first faces after.

python -m benchmarks.cold_start
"""

import tempfile
import time
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import httpx
import torch

from benchmarks.load import Asked
from benchmarks.machine import Machine
from benchmarks.processes import measure
from benchmarks.rows import RESULTS, Spread, append
from benchmarks.subjects import VOICES
from voicestyle.archive import ARCHIVE
from voicestyle.serving import TorchServe, stop_on_signals
from voicestyle.serving.server import WORKER

Seconds = dict[str, float]


@click.command()
@click.option("--archive", default=ARCHIVE, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=50, show_default=True)
@click.option("--size", default=256, show_default=True, help="Pixels a side.")
@click.option("--output", default=RESULTS / "cold_start.jsonl", type=click.Path(path_type=Path), help="Rows are added.")
def main(archive: Path, repeats: int, steps: int, size: int, output: Path) -> None:
    """Measure both kinds of start in turn and write a row."""
    machine = Machine.here(torch.device("cpu"))
    stages: list[Seconds] = []
    served: list[Seconds] = []
    with stop_on_signals(), tempfile.TemporaryDirectory() as folder:
        bundle = unpack(archive, Path(folder))
        for _ in range(repeats):
            stages.append(start(bundle))
            served.append(serve(archive, Asked(steps, size)))
    row: dict[str, Any] = {
        "benchmark": "cold start",
        "repeats": repeats,
        "stages": spreads(stages),
        "stages_together": Spread.of(sum(each.values()) for each in stages).as_row(),
        "torchserve": spreads(served),
        "steps": steps,
        "size": size,
        "machine": asdict(machine),
    }
    append(output, row)
    for part in ("stages", "torchserve"):
        for name, seconds in row[part].items():
            click.echo(f"{name}: {seconds['median']:g} s ({seconds['min']:g} to {seconds['max']:g})")


def unpack(archive: Path, folder: Path) -> Path:
    """The bundle of an archive, in a folder."""
    with zipfile.ZipFile(archive) as source:
        source.extractall(folder, [name for name in source.namelist() if name.startswith("bundle/")])
    return folder / "bundle"


def start(bundle: Path) -> Seconds:
    """The stages of a worker's start, without TorchServe around it."""
    return measure("benchmarks.cold_start_worker", [bundle, time.time()], WORKER)


def serve(archive: Path, asked: Asked) -> Seconds:
    """From the start of TorchServe to a worker that is ready, then its first two faces."""
    began = time.perf_counter()
    found: Seconds = {}
    with TorchServe(archive) as server:
        found["ready"] = time.perf_counter() - began
        for name in ("first face", "second face"):
            began = time.perf_counter()
            body, headers = VOICES[0].read_bytes(), asked.headers(seed=0)
            httpx.post(server.url, content=body, headers=headers, timeout=600, trust_env=False).raise_for_status()
            found[name] = time.perf_counter() - began
    return found


def spreads(found: list[Seconds]) -> dict[str, dict[str, float]]:
    """By stage."""
    return {name: Spread.of(each[name] for each in found).as_row() for name in found[0]}


if __name__ == "__main__":
    main()
