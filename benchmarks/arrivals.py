"""Requests that come when they like: a Poisson process of real voices."""

import random
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Arrival:
    """A request: when it comes, in seconds from the beginning, and what it asks for."""

    at: float
    voice: Path
    seed: int


def poisson(rate: float, count: int, voices: list[Path], seed: int) -> list[Arrival]:
    """`count` arrivals at `rate` a second on average; the same seed, the same arrivals.

    Raises ValueError for a rate that is not positive or no voices.
    """
    if rate <= 0 or not voices:
        raise ValueError(f"arrivals need a positive rate and a voice, got {rate:g} a second and {len(voices)} voices")
    source = random.Random(seed)
    at = 0.0
    found: list[Arrival] = []
    for number in range(count):
        at += source.expovariate(rate)
        found.append(Arrival(at, source.choice(voices), number))
    return found
