"""Serving under arrivals: the joining batch against fixed batches and one request at a time, on the same archive.

    python -m benchmarks.serving

Requests arrive as a Poisson process at shares of the measured capacity and do not wait for each other's answers;
every mode gets the same arrivals and voices, on a TorchServe of its own, and the modes take turns.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import torch

from benchmarks.arrivals import Arrival, poisson
from benchmarks.load import Answered, Asked, client, closed_loop, open_loop, percentile, throughput
from benchmarks.machine import Machine
from benchmarks.modes import JOINING, MODES, PLACES, Mode, derive
from benchmarks.rows import RESULTS, Row, Spread, append, significant
from benchmarks.subjects import VOICES
from voicestyle.archive import ARCHIVE
from voicestyle.serving import TorchServe, stop_on_signals

CAPACITY_ROUNDS = 3  # requests of each client while the capacity is measured
SHARES = (0.3, 0.5, 0.7, 0.9)


@dataclass
class Case:
    """One row in the making: a mode and a share of the capacity, and the answers of each run."""

    mode: str
    share: float
    runs: list[list[Answered]] = field(default_factory=list[list[Answered]])

    def row(self) -> Row:
        """What the runs amount to; times are in seconds, those to the first step and to the answer."""
        row: dict[str, Any] = {"benchmark": "serving", "mode": self.mode, "share": self.share, "runs": len(self.runs)}
        answers = [each for run in self.runs for each in run]
        faces = [[each for each in run if each.error is None] for run in self.runs]
        row |= {"requests": len(answers), "errors": dict(Counter(each.error for each in answers if each.error))}
        if not faces or not all(faces):
            return row
        first = [[each.to_first_step for each in run if each.to_first_step is not None] for run in faces]
        whole = [[each.seconds for each in run] for run in faces]
        row["mean_batch"] = significant(fmean(each.shared for run in faces for each in run), 3)
        row["faces_per_minute"] = Spread.of(60 * throughput(run) for run in self.runs).as_row()
        for name, runs in (("first_step", first), ("answer", whole)):
            for share in (50, 99):
                row[f"{name}_p{share}"] = Spread.of(percentile(run, share / 100) for run in runs).as_row()
        return row


@contextmanager
def serve(archive: Path, mode: Mode) -> Generator[TorchServe]:
    """The archive in a mode, on a TorchServe of its own."""
    with tempfile.TemporaryDirectory() as folder, TorchServe(derive(archive, mode, Path(folder))) as server:
        yield server


async def run_open(url: str, arrivals: Sequence[Arrival], asked: Asked) -> list[Answered]:
    """One face that does not count, then the arrivals."""
    async with client() as http:
        await closed_loop(http, url, arrivals[:1], asked, 1)
        return await open_loop(http, url, arrivals, asked)


async def run_closed(url: str, count: int, asked: Asked, clients: int) -> list[Answered]:
    """One face that does not count, then `count` of so many clients that wait for their answers."""
    requests = [Arrival(0, VOICES[number % len(VOICES)], number) for number in range(count)]
    async with client() as http:
        await closed_loop(http, url, requests[:1], asked, 1)
        return await closed_loop(http, url, requests, asked, clients)


@click.command()
@click.option("--archive", default=ARCHIVE, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--share", "shares", multiple=True, default=SHARES, type=float, help="Of the measured capacity.")
@click.option("--mode", "modes", multiple=True, default=tuple(MODES), type=click.Choice(list(MODES)))
@click.option("--requests", default=100, show_default=True, type=click.IntRange(1), help="Of each run.")
@click.option("--runs", default=1, show_default=True, type=click.IntRange(1), help="Each with arrivals of its own.")
@click.option("--steps", default=20, show_default=True)
@click.option("--size", default=256, show_default=True, help="Pixels a side.")
@click.option("--output", default=RESULTS / "serving.jsonl", type=click.Path(path_type=Path), help="Rows are added.")
def main(
    archive: Path,
    shares: Sequence[float],
    modes: Sequence[str],
    requests: int,
    runs: int,
    steps: int,
    size: int,
    output: Path,
) -> None:
    """Measure all modes at all rates and write a row for each."""
    asked, machine = Asked(steps, size), Machine.here(torch.device("cpu"))
    cases = [Case(mode, share) for share in shares for mode in modes]
    with stop_on_signals():
        with serve(archive, MODES[JOINING]) as server:
            saturated = asyncio.run(run_closed(server.url, CAPACITY_ROUNDS * PLACES, asked, PLACES))
        capacity = throughput(saturated)
        if errors := [each.error for each in saturated if each.error]:
            raise click.ClickException(f"the capacity cannot be measured: {errors[0]}")
        click.echo(f"capacity: {60 * capacity:.3g} faces a minute", err=True)
        try:
            for run in range(runs):
                for case in cases:
                    arrivals = poisson(case.share * capacity, requests, list(VOICES), run)
                    click.echo(f"{case.mode} at {case.share:.0%}: {arrivals[-1].at:.0f} s and more", err=True)
                    with serve(archive, MODES[case.mode]) as server:
                        case.runs.append(asyncio.run(run_open(server.url, arrivals, asked)))
        finally:  # an interrupted run keeps what it has
            common: dict[str, Any] = {"capacity_per_minute": significant(60 * capacity)}
            common |= {"steps": steps, "size": size, "places": PLACES, "machine": asdict(machine)}
            for case in cases:
                row = {**case.row(), **common}
                click.echo({name: value for name, value in row.items() if name != "machine"})
                append(output, row)


if __name__ == "__main__":
    main()
