"""Load on a service: open, where requests come without waiting for answers, and closed, where clients do wait."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import httpx

from benchmarks.arrivals import Arrival

HELD: Final = "X-Benchmark-Held"  # seconds that an answer lay ready in the worker
AFTER_JOINING: Final = ("optimise", "render", "encode")  # stages that follow the first step's beginning


@dataclass(frozen=True)
class Asked:
    """What every request asks for."""

    steps: int
    size: int

    def headers(self, seed: int) -> dict[str, str]:
        """Of a request with the audio file as its body."""
        options = {"Steps": self.steps, "Size": self.size, "Seed": seed, "Output": "json"}
        words = {f"X-VoiceStyle-{name}": str(value) for name, value in options.items()}
        return words | {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Answered:
    """One request: when it was sent and answered, in seconds from the beginning, and whether with a face.

    to_first_step: seconds from sending until its first step began, by the client's clock less the stages that the
    answer says came later. shared: most faces that were on their way together with it. error: what came instead.
    """

    sent: float
    done: float
    to_first_step: float | None = None
    shared: int = 0
    error: str | None = None

    @property
    def seconds(self) -> float:
        """From sending to the answer."""
        return self.done - self.sent


def client() -> httpx.AsyncClient:
    """Without limits of its own, without retries, and without a proxy of the environment."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)


async def open_loop(http: httpx.AsyncClient, url: str, arrivals: Sequence[Arrival], asked: Asked) -> list[Answered]:
    """Send each request at its time, whatever became of those before."""
    began = perf_counter()

    async def send(arrival: Arrival) -> Answered:
        await asyncio.sleep(arrival.at - (perf_counter() - began))
        return await _ask(http, url, arrival, asked, began)

    return list(await asyncio.gather(*(send(arrival) for arrival in arrivals)))


async def closed_loop(
    http: httpx.AsyncClient, url: str, arrivals: Sequence[Arrival], asked: Asked, clients: int
) -> list[Answered]:
    """So many clients send the requests between them, each its next one when it has been answered."""
    began = perf_counter()
    left = iter(arrivals)

    async def go_on() -> list[Answered]:
        return [await _ask(http, url, arrival, asked, began) for arrival in left]

    return [each for answers in await asyncio.gather(*(go_on() for _ in range(clients))) for each in answers]


async def _ask(http: httpx.AsyncClient, url: str, arrival: Arrival, asked: Asked, began: float) -> Answered:
    audio, sent = arrival.voice.read_bytes(), perf_counter() - began
    try:
        response = await http.post(url, content=audio, headers=asked.headers(arrival.seed))
    except httpx.HTTPError as error:
        return Answered(sent, perf_counter() - began, error=type(error).__name__)
    done = perf_counter() - began
    if response.status_code != 200:
        return Answered(sent, done, error=f"status {response.status_code}")
    face: dict[str, Any] = response.json()
    timings: dict[str, float] = face["timings"]
    later = float(response.headers.get(HELD, 0)) + sum(timings.get(stage, 0) for stage in AFTER_JOINING)
    return Answered(sent, done, to_first_step=done - sent - later, shared=face["batch"])


def throughput(answers: Sequence[Answered]) -> float:
    """Faces a second, from the first request to the last answer."""
    faces = sum(each.error is None for each in answers)
    return faces / (max(each.done for each in answers) - min(each.sent for each in answers))


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so large a share does not exceed. Raises ValueError where there are none."""
    if not values:
        raise ValueError("a percentile needs at least one value, got none")
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]
