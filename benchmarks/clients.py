"""How a service shares itself: faces a minute with one client and with several that ask again when answered.

python -m benchmarks.clients
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import torch

from benchmarks.load import Answered, Asked, throughput
from benchmarks.machine import Machine
from benchmarks.modes import JOINING, MODES
from benchmarks.rows import RESULTS, Spread, append
from benchmarks.serving import run_closed, serve
from voicestyle.archive import ARCHIVE


@click.command()
@click.option("--archive", default=ARCHIVE, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--clients", "numbers", multiple=True, default=(1, 4), type=click.IntRange(1))
@click.option("--faces", default=2, show_default=True, type=click.IntRange(1), help="Of each client, in each repeat.")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=50, show_default=True)
@click.option("--size", default=256, show_default=True, help="Pixels a side.")
@click.option("--output", default=RESULTS / "clients.jsonl", type=click.Path(path_type=Path), help="Rows are added.")
def main(archive: Path, numbers: Sequence[int], faces: int, repeats: int, steps: int, size: int, output: Path) -> None:
    """Measure one running service with each number of clients in turn, and write a row for each."""
    asked, machine = Asked(steps, size), Machine.here(torch.device("cpu"))
    found: dict[int, list[list[Answered]]] = {number: [] for number in numbers}
    with serve(archive, MODES[JOINING]) as server:
        for _ in range(repeats):
            for number, runs in found.items():
                runs.append(asyncio.run(run_closed(server.url, number * faces, asked, number)))
    for number, runs in found.items():
        answers = [each for run in runs for each in run]
        row = {
            "benchmark": "clients",
            "clients": number,
            "repeats": repeats,
            "faces_per_repeat": number * faces,
            "errors": sum(each.error is not None for each in answers),
            "faces_per_minute": Spread.of(60 * throughput(run) for run in runs).as_row(),
            "answer_seconds": Spread.of(each.seconds for each in answers).as_row(),
            "steps": steps,
            "size": size,
            "machine": asdict(machine),
        }
        click.echo(f"{number} clients: {row['faces_per_minute']} faces a minute, answers in {row['answer_seconds']} s")
        append(output, row)


if __name__ == "__main__":
    main()
