"""Arrivals, the load they make, and what is read from the answers."""

import asyncio
from collections import Counter
from itertools import pairwise

import httpx
import pytest

from benchmarks import fixed_batches, load
from benchmarks.arrivals import Arrival, poisson
from benchmarks.load import Answered, Asked

URL = "http://service/predictions/voicestyle"
ASKED = Asked(steps=7, size=32)
TIMINGS = {"decode": 1.0, "queue": 2.0, "optimise": 0.004, "render": 0.003, "encode": 0.002}


@pytest.fixture
def voice(tmp_path):
    path = tmp_path / "voice.wav"
    path.write_bytes(b"RIFF")
    return path


def run(loop, handler, *arguments):
    async def all_of_it():
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as http:
            return await loop(http, URL, *arguments)

    return asyncio.run(all_of_it())


def test_arrivals_are_a_poisson_process(tmp_path):
    voices = [tmp_path / name for name in "abc"]
    arrivals = poisson(2.0, 4000, voices, seed=1)
    gaps = [after.at - before.at for before, after in pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.5, rel=0.05)
    # Of an exponential distribution the standard deviation is the mean, and gaps shorter than the mean are 63 %.
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(0.5, rel=0.1)
    assert sum(gap < mean for gap in gaps) / len(gaps) == pytest.approx(0.632, abs=0.03)
    assert min(Counter(arrival.voice for arrival in arrivals).values()) > 1000
    assert len({arrival.seed for arrival in arrivals}) == 4000
    assert arrivals == poisson(2.0, 4000, voices, seed=1)
    assert arrivals != poisson(2.0, 4000, voices, seed=2)
    with pytest.raises(ValueError, match="positive rate"):
        poisson(0, 1, voices, seed=0)


def test_arrivals_do_not_wait_for_answers(voice):
    arrivals = [Arrival(0.01 * i, voice, i) for i in range(5)]
    seeds, all_here = [], asyncio.Event()

    async def answer(request):
        seeds.append(request.headers["X-VoiceStyle-Seed"])
        if len(seeds) == len(arrivals):
            all_here.set()
        await all_here.wait()  # for ever, if they waited
        assert await request.aread() == b"RIFF"
        assert request.headers["X-VoiceStyle-Steps"] == "7"
        assert request.headers["X-VoiceStyle-Output"] == "json"
        return httpx.Response(200, json={"timings": TIMINGS, "batch": 3})

    answers = run(load.open_loop, answer, arrivals, ASKED)
    assert seeds == ["0", "1", "2", "3", "4"]
    assert [each.error for each in answers] == [None] * 5
    for arrival, each in zip(arrivals, answers, strict=True):
        assert each.sent >= arrival.at
        assert each.shared == 3
        assert each.to_first_step == pytest.approx(each.seconds - 0.009)


def test_clients_wait_for_their_answers(voice):
    here, most = 0, 0

    async def answer(_):
        nonlocal here, most
        here += 1
        most = max(most, here)
        await asyncio.sleep(0)
        here -= 1
        return httpx.Response(200, json={"timings": TIMINGS, "batch": 3}, headers={load.HELD: "0.5"})

    arrivals = [Arrival(0, voice, i) for i in range(7)]
    answers = run(load.closed_loop, answer, arrivals, ASKED, 2)
    assert (len(answers), most) == (7, 2)
    assert answers[0].to_first_step == pytest.approx(answers[0].seconds - 0.509)


def test_errors_are_told_apart_from_faces(voice):
    def answer(request):
        if request.headers["X-VoiceStyle-Seed"] == "0":
            raise httpx.ReadError("gone")
        return httpx.Response(503, json={"error": {"code": "overloaded"}})

    answers = run(load.open_loop, answer, [Arrival(0, voice, 0), Arrival(0, voice, 1)], ASKED)
    assert [each.error for each in answers] == ["ReadError", "status 503"]
    assert load.throughput(answers) == 0


def test_throughput_is_of_faces_from_the_first_request_to_the_last_answer():
    answers = [Answered(1, 3), Answered(2, 9), Answered(4, 11, error="status 500")]
    assert load.throughput(answers) == 0.2


def test_percentiles_are_values_that_occurred():
    values = [float(value) for value in range(1, 101)]
    assert load.percentile(values, 0.5) == 50
    assert load.percentile(values, 0.99) == 99
    assert load.percentile([3.0, 1.0], 0.99) == 3
    assert load.percentile([3.0], 0.5) == 3
    with pytest.raises(ValueError, match="at least one"):
        load.percentile([], 0.5)


def test_handler_and_load_agree_on_a_header():
    assert fixed_batches.HELD == load.HELD
