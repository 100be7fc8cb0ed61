"""How the service behaves under load, in a closed loop and in an open one.

    python -m benchmarks.serving

First clients that wait for each response before they send the next request. Then requests that arrive as a Poisson
process, at shares of the capacity that eight such clients reached; three ways of serving the same archive get the same
arrivals and voices, each on a TorchServe of its own.
"""

import asyncio
import json
import math
import random
import tempfile
import zipfile
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any, Final

import click
import numpy as np
import yaml

from benchmarks.networks import VOICES
from benchmarks.results import ARCHIVE, RESULTS, Row, append, machine, significant, spread
from benchmarks.tables import arrivals_table, clients_table
from voicestyle.archive import HANDLER, MODEL, MODEL_CONFIG
from voicestyle.client import APIError, AsyncClient
from voicestyle.serving import TorchServe, stop_on_signals

SLOTS: Final = 8  # of a batch, fixed or continuous
BATCH_SIZE: Final = 32  # requests that TorchServe passes to the handler: those with a slot, and waiting ones
TIMEOUT: Final = 36_000  # s; long, because the waiting is what is measured
AFTER_FIRST_STEP: Final = ("optimise", "render", "encode", "held")  # timings of a face that follow its first step
FIXED_BATCHES: Final = Path(__file__).with_name("fixed_batches.py")

Config = Mapping[str, Any]
CONTINUOUS: Final = "continuous batch"
MODES: Final[Mapping[str, Config]] = {  # changes to the model config
    "one at a time": {"batchSize": BATCH_SIZE, "handler": {"live_requests": 1, "queue": BATCH_SIZE - 1}},
    "fixed batches": {
        "continuousBatching": False,
        "batchSize": SLOTS,
        "maxBatchDelay": 100,  # ms, TorchServe's default
        "handler": {"live_requests": SLOTS, "iteration_seconds": 3600},
    },
    CONTINUOUS: {"batchSize": BATCH_SIZE, "handler": {"live_requests": SLOTS, "queue": BATCH_SIZE - SLOTS}},
}


def derive(archive: Path, mode: str, folder: Path) -> Path:
    """Write the archive of a mode into an empty folder and return its path. Raises OSError, BadZipFile."""
    derived, config_name, manifest_name = folder / f"{MODEL}.mar", Path(MODEL_CONFIG).name, "MAR-INF/MANIFEST.json"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(derived, "w") as target:
        contents = {name: source.read(name) for name in source.namelist()}
        config: dict[str, Any] = yaml.safe_load(contents[config_name])
        limits = config["handler"] | MODES[mode]["handler"]
        config |= {"jobQueueSize": 10_000, "responseTimeout": TIMEOUT, **MODES[mode], "handler": limits}
        contents[config_name] = yaml.safe_dump(config).encode()
        if mode == "fixed batches":
            manifest = json.loads(contents[manifest_name])
            manifest["model"]["handler"] = FIXED_BATCHES.name
            contents[manifest_name] = json.dumps(manifest).encode()
            contents[FIXED_BATCHES.name] = FIXED_BATCHES.read_bytes()
            name = Path(HANDLER).name
            contents[f"handlers/{name}"] = contents[name]  # the base class of that handler
        for name, content in contents.items():
            target.writestr(name, content)
    return derived


@contextmanager
def serve(archive: Path, mode: str) -> Generator[TorchServe]:
    """Serve the archive in a mode, on a new TorchServe."""
    with tempfile.TemporaryDirectory() as folder, TorchServe(derive(archive, mode, Path(folder))) as server:
        yield server


@dataclass(frozen=True)
class Request:
    """A voice and a seed, and the time of sending in seconds from the beginning."""

    at: float
    voice: Path
    seed: int


@dataclass(frozen=True)
class Result:
    """When a request was sent and when its response had arrived, in seconds from the beginning.

    first_step: seconds from sending to the beginning of the first step, which is the time to the response less the
    timings of the face that follow its first step. batch: most requests that shared a step with it. similarity: of the
    face. error: the name of the exception, if there is no face.
    """

    sent: float
    done: float
    first_step: float = 0.0
    batch: int = 0
    similarity: float = math.nan
    error: str | None = None

    @property
    def seconds(self) -> float:
        """From sending to the response."""
        return self.done - self.sent


def poisson(rate: float, count: int, seed: int) -> list[Request]:
    """`count` requests at `rate` a second on average; the same seed gives the same requests."""
    draw = random.Random(seed)
    at = 0.0
    requests: list[Request] = []
    for number in range(count):
        at += draw.expovariate(rate)
        requests.append(Request(at, draw.choice(VOICES), number))
    return requests


Send = Callable[[Request], Awaitable[Result]]


def sender(client: AsyncClient, steps: int | None, size: int, preset: str | None = None) -> Send:
    """Return a function that sends one request. Its results count seconds from now."""
    began = perf_counter()

    async def send(request: Request) -> Result:
        sent = perf_counter() - began
        try:
            face = await client.generate(request.voice, seed=request.seed, steps=steps, size=size, preset=preset)
        except APIError as error:
            return Result(sent, perf_counter() - began, error=type(error).__name__)
        done = perf_counter() - began
        later = sum(face.timings.get(stage, 0.0) for stage in AFTER_FIRST_STEP)
        return Result(sent, done, done - sent - later, face.batch, face.similarity)

    return send


async def open_loop(send: Send, requests: Sequence[Request]) -> list[Result]:
    """Send each request at its time, whether or not earlier ones have their responses."""

    async def wait_and_send(request: Request) -> Result:
        await asyncio.sleep(request.at)
        return await send(request)

    return list(await asyncio.gather(*map(wait_and_send, requests)))


async def closed_loop(send: Send, requests: Sequence[Request], clients: int) -> list[Result]:
    """`clients` clients share the requests; each sends its next one when the response to its last one is there."""
    remaining = iter(requests)

    async def client() -> list[Result]:
        return [await send(request) for request in remaining]

    return [each for results in await asyncio.gather(*(client() for _ in range(clients))) for each in results]


def measure(
    server: TorchServe,
    steps: int | None,
    size: int,
    requests: Sequence[Request],
    clients: int | None = None,
    preset: str | None = None,
) -> list[Result]:
    """Send one request that is not measured, then all of them: in a closed loop of `clients`, or in an open loop."""

    async def run() -> list[Result]:
        url = f"http://127.0.0.1:{server.ports.inference}"
        async with AsyncClient(url, timeout=TIMEOUT, deadline=TIMEOUT, max_retries=0) as client:
            await sender(client, steps, size, preset)(requests[0])
            send = sender(client, steps, size, preset)
            return await (closed_loop(send, requests, clients) if clients else open_loop(send, requests))

    return asyncio.run(run())


def throughput(results: Sequence[Result]) -> float:
    """Faces a minute, from the first request to the last response."""
    faces = sum(each.error is None for each in results)
    return 60 * faces / (max(each.done for each in results) - min(each.sent for each in results))


def clients_row(clients: int, runs: Sequence[Sequence[Result]]) -> dict[str, Any]:
    """Faces a minute of each run, and seconds of each response."""
    results = [each for run in runs for each in run]
    return {
        "benchmark": "clients",
        "clients": clients,
        "repeats": len(runs),
        "faces_per_repeat": len(runs[0]),
        "errors": sum(each.error is not None for each in results),
        "faces_per_minute": spread(map(throughput, runs)),
        "response_seconds": spread(each.seconds for each in results),
    }


def arrivals_row(mode: str, share: float, runs: Sequence[Sequence[Result]]) -> dict[str, Any]:
    """Percentiles of each run in seconds, to the first step and to the response, and their spread over the runs."""
    row: dict[str, Any] = {"benchmark": "arrivals", "mode": mode, "share": share, "runs": len(runs)}
    errors = Counter(each.error for run in runs for each in run if each.error)
    row |= {"requests": sum(map(len, runs)), "errors": dict(errors)}
    faces = [[each for each in run if each.error is None] for run in runs]
    if not faces or not all(faces):
        return row
    row["mean_batch"] = significant(fmean(each.batch for run in faces for each in run), 3)
    row["faces_per_minute"] = spread(map(throughput, runs))
    for name, seconds in (
        ("first_step", [[each.first_step for each in run] for run in faces]),
        ("response", [[each.seconds for each in run] for run in faces]),
    ):
        for percent in (50, 99):
            values = [float(np.percentile(run, percent, method="inverted_cdf")) for run in seconds]
            row[f"{name}_p{percent}"] = spread(values)
    return row


@click.command()
@click.option("--archive", default=ARCHIVE, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--clients", multiple=True, default=(1, 4), type=click.IntRange(1), help="Measured in addition to 8.")
@click.option("--faces", default=2, show_default=True, type=click.IntRange(1), help="Of each client in each run.")
@click.option("--share", "shares", multiple=True, default=(0.5, 0.7, 0.9), help="Arrivals as a share of the capacity.")
@click.option("--mode", "modes", multiple=True, default=tuple(MODES), type=click.Choice(list(MODES)))
@click.option("--requests", default=60, show_default=True, type=click.IntRange(1), help="Arrivals of each run.")
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1), help="Each with other arrivals.")
@click.option("--steps", default=20, show_default=True)
@click.option("--size", default=256, show_default=True, help="Pixels a side.")
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path), help="Folder; rows are appended.")
def main(
    archive: Path,
    clients: Sequence[int],
    faces: int,
    shares: Sequence[float],
    modes: Sequence[str],
    requests: int,
    runs: int,
    steps: int,
    size: int,
    results: Path,
) -> None:
    """Measure clients and arrivals, write a row for each number of clients, share and mode, and print them."""
    common: dict[str, Any] = {"steps": steps, "size": size, "machine": machine()}
    waiting: dict[int, list[list[Result]]] = {number: [] for number in sorted({*clients, SLOTS})}
    arriving: dict[tuple[float, str], list[list[Result]]] = {(share, mode): [] for share in shares for mode in modes}
    with stop_on_signals():
        with serve(archive, CONTINUOUS) as server:
            for _ in range(runs):
                for number, measured in waiting.items():
                    sent = [Request(0, VOICES[i % len(VOICES)], i) for i in range(number * faces)]
                    measured.append(measure(server, steps, size, sent, number))
        rows = [clients_row(number, measured) | common for number, measured in waiting.items()]
        append(results / "clients.jsonl", rows)
        click.echo(clients_table(rows))
        capacity = median(map(throughput, waiting[SLOTS]))
        if not capacity:
            raise click.ClickException("the capacity cannot be measured: no request got a face")
        common |= {"slots": SLOTS, "capacity_per_minute": significant(capacity)}
        try:
            for run in range(runs):
                for (share, mode), measured in arriving.items():
                    sent = poisson(share * capacity / 60, requests, run)
                    click.echo(f"{mode} at {share:.0%}, run {run + 1}: at least {sent[-1].at:.0f} s", err=True)
                    with serve(archive, mode) as server:
                        measured.append(measure(server, steps, size, sent))
        finally:  # an interrupted run keeps its measurements
            rows: list[Row] = [
                arrivals_row(mode, share, measured) | common for (share, mode), measured in arriving.items()
            ]
            append(results / "arrivals.jsonl", rows)
            click.echo(arrivals_table(rows))


if __name__ == "__main__":
    main()
