"""Load on a service, the modes of serving that are compared, and the rows that come of it."""

import asyncio
import json
import logging
import zipfile
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from benchmarks import cold_start, instant, serving
from benchmarks.fixed_batches import FixedBatchHandler
from benchmarks.networks import VOICES
from benchmarks.results import read
from benchmarks.serving import MODES, Request, Result, derive, poisson
from handlers import voicestyle_handler
from tests.support.fake_torchserve import FakePipeline, Frontend
from voicestyle.archive import build_archive
from voicestyle.client import APIConnectionError
from voicestyle.worker.service_config import ServiceConfig

TIMINGS = {"decode": 1.0, "queue": 2.0, "optimise": 0.004, "render": 0.003, "encode": 0.002}
REQUESTS = [Request(0.01 * i, VOICES[0], i) for i in range(5)]


def test_arrivals_are_a_poisson_process():
    arrivals = poisson(2.0, 4000, seed=1)
    gaps = np.array([after.at - before.at for before, after in pairwise(arrivals)])
    assert gaps.mean() == pytest.approx(0.5, rel=0.05)
    # Of an exponential distribution the standard deviation is the mean, and 63 % of the gaps are below the mean.
    assert gaps.std() == pytest.approx(0.5, rel=0.1)
    assert (gaps < gaps.mean()).mean() == pytest.approx(0.632, abs=0.03)
    assert min(Counter(arrival.voice for arrival in arrivals).values()) > 1000
    assert len({arrival.seed for arrival in arrivals}) == 4000
    assert arrivals == poisson(2.0, 4000, seed=1)
    assert arrivals != poisson(2.0, 4000, seed=2)


class FakeClient:
    """Responds with `respond(seed)`."""

    def __init__(self, respond):
        self.respond = respond

    async def generate(self, audio, *, seed, steps, size, preset):
        assert (audio, steps, size, preset) == (VOICES[0], 7, 32, None)
        return await self.respond(seed)


def run(loop, respond, *arguments):
    async def all_requests():
        return await loop(serving.sender(FakeClient(respond), 7, 32), *arguments)

    return asyncio.run(all_requests())


def face(**timings):
    return SimpleNamespace(timings=TIMINGS | timings, batch=3, similarity=0.5)


def test_open_loop_does_not_wait_for_responses():
    seeds, all_sent = [], asyncio.Event()

    async def respond(seed):
        seeds.append(seed)
        if len(seeds) == len(REQUESTS):
            all_sent.set()
        await asyncio.wait_for(all_sent.wait(), 30)
        return face()

    results = run(serving.open_loop, respond, REQUESTS)
    assert seeds == [0, 1, 2, 3, 4]
    for request, result in zip(REQUESTS, results, strict=True):
        assert (result.error, result.batch) == (None, 3)
        assert result.sent >= request.at
        assert result.first_step == pytest.approx(result.seconds - 0.009)


def test_closed_loop_waits_for_responses():
    running, most = 0, 0

    async def respond(_):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return face(held=0.5)

    results = run(serving.closed_loop, respond, REQUESTS, 2)
    assert (len(results), most) == (5, 2)
    assert results[0].first_step == pytest.approx(results[0].seconds - 0.509)


def test_errors_are_results_too():
    async def respond(seed):
        raise APIConnectionError("no face")

    results = run(serving.open_loop, respond, REQUESTS[:2])
    assert [each.error for each in results] == ["APIConnectionError"] * 2
    assert serving.throughput(results) == 0


def test_throughput_counts_faces_alone():
    results = [Result(1, 3), Result(2, 9), Result(4, 11, error="ServerError")]
    assert serving.throughput(results) == 12


def test_a_row_has_the_spread_over_its_runs():
    runs = []
    for shift in (0.0, 1.0):
        faces = [Result(sent=i, done=i + 2 + shift, first_step=0.5 + shift, batch=i % 2 + 1) for i in range(10)]
        runs.append([*faces, Result(sent=10, done=10.5, error="OverloadedError")])
    row = serving.arrivals_row("continuous batch", 0.7, runs)
    assert row["requests"] == 22
    assert row["mean_batch"] == 1.5
    assert row["errors"] == {"OverloadedError": 2}
    assert row["response_p99"] == {"median": 2.5, "min": 2.0, "max": 3.0}
    assert row["first_step_p50"] == {"median": 1.0, "min": 0.5, "max": 1.5}
    assert row["faces_per_minute"]["max"] == pytest.approx(60 * 10 / 11, rel=1e-3)


def test_percentiles_are_values_that_occurred():
    faces = [Result(0, float(seconds)) for seconds in range(1, 101)]
    row = serving.arrivals_row("continuous batch", 0.7, [faces])
    assert (row["response_p50"]["median"], row["response_p99"]["median"]) == (50, 99)


def test_a_run_without_faces_has_a_row():
    row = serving.arrivals_row("continuous batch", 0.7, [[Result(0, 1, error="APIConnectionError")]])
    assert row["errors"] == {"APIConnectionError": 1}
    assert serving.arrivals_row("continuous batch", 0.7, [])["runs"] == 0


def test_a_preset_is_compared_with_the_default_of_the_same_run():
    default = [[Result(0, 6, similarity=0.5), Result(6, 12, similarity=0.6)], [Result(0, 9, similarity=0.6)]]
    quick = [[Result(0, 1, similarity=0.7), Result(1, 2, similarity=0.5)], [Result(0, 1, error="ServerError")]]
    row = instant.preset_row("instant", quick, default)
    assert (row["benchmark"], row["preset"], row["errors"]) == ("instant", "instant", 1)
    assert row["times_default"] == {"median": 3.0, "min": 0.0, "max": 6.0}
    assert row["similarity"] == 0.6
    assert instant.preset_row("default", default, default)["times_default"]["median"] == 1
    failed = [[Result(0, 1, error="ServerError")]]
    assert "times_default" not in instant.preset_row("instant", failed, failed)


def test_an_archive_without_a_mapper_is_an_error(archive):
    result = CliRunner().invoke(instant.main, ["--archive", str(archive)])
    assert result.exit_code == 1
    assert "must hold a bundle with a mapper, got tiny without one" in result.output


@pytest.fixture(scope="module")
def archive(tiny_bundle, tmp_path_factory):
    return build_archive(tiny_bundle, tmp_path_factory.mktemp("store") / "voicestyle.mar")


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_changes_the_config_alone(archive, tmp_path, mode):
    derived = derive(archive, mode, tmp_path)
    with zipfile.ZipFile(archive) as before, zipfile.ZipFile(derived) as after:
        assert set(before.namelist()) <= set(after.namelist())
        changed = {entry for entry in before.namelist() if before.read(entry) != after.read(entry)}
        assert changed <= {"model_config.yaml", "MAR-INF/MANIFEST.json"}
        config = yaml.safe_load(after.read("model_config.yaml"))
        handler = json.loads(after.read("MAR-INF/MANIFEST.json"))["model"]["handler"]
        assert handler in after.namelist()
        if mode == "fixed batches":
            assert after.read("handlers/voicestyle_handler.py") == before.read("voicestyle_handler.py")
            assert handler == "fixed_batches.py"
    limits = ServiceConfig.parse(config["handler"])
    assert limits.live_requests == (1 if mode == "one at a time" else 8)
    assert limits.most_admitted >= config["batchSize"], "no request may be rejected"
    assert config["continuousBatching"] is (mode != "fixed batches")


@pytest.fixture
def fixed(monkeypatch, tmp_path):
    """A frontend whose handler serves fixed batches; requests wait until the next call."""
    for name in (None, "voicestyle"):  # the handler sets these levels; monkeypatch restores them
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "level", logger.level)
    pipeline = FakePipeline()
    monkeypatch.setattr(voicestyle_handler.Pipeline, "load", pipeline.loaded)
    frontend = Frontend(FixedBatchHandler(), model_dir=tmp_path)
    frontend.pipeline = pipeline
    return frontend


def test_a_fixed_batch_responds_at_once(fixed):
    fixed.post("a", b"first", X_VoiceStyle_Steps=3, X_VoiceStyle_Output="json")
    fixed.post("b", b"second", X_VoiceStyle_Steps=9)
    fixed.post("c", b"text")
    fixed.post("d", b"third", X_VoiceStyle_Steps=9, X_VoiceStyle_Output="json")
    fixed.call()
    assert set(fixed.responses) == {"a", "b", "c", "d"}
    assert fixed.responses["b"].body == b"png of second"
    assert fixed.responses["c"].status == 415
    held = {key: json.loads(fixed.responses[key].body)["timings"]["held"] for key in "ad"}
    assert held["a"] >= held["d"] >= 0
    assert max(fixed.pipeline.calls) == 3
    assert fixed.pipeline.steps == {}


@pytest.mark.slow
@pytest.mark.serving
def test_serving_on_a_real_torchserve(archive, tmp_path):
    arguments = ["--archive", archive, "--results", tmp_path, "--steps", 10, "--size", 32]
    arguments += ["--clients", 1, "--runs", 1, "--share", 0.5, "--requests", 6]
    result = CliRunner().invoke(serving.main, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert [(row["clients"], row["errors"]) for row in read(tmp_path / "clients.jsonl")] == [(1, 0), (8, 0)]
    rows = read(tmp_path / "arrivals.jsonl")
    assert [row["mode"] for row in rows] == list(MODES)
    for row in rows:
        assert (row["requests"], row["errors"]) == (6, {})
        assert 0 < row["first_step_p50"]["median"] < row["response_p50"]["median"] <= row["response_p99"]["median"]
        assert row["mean_batch"] == 1 or row["mode"] != "one at a time"


@pytest.mark.slow
@pytest.mark.serving
def test_fixed_batches_share_steps_on_a_real_torchserve(archive):
    requests = [Request(0, VOICES[0], number) for number in range(16)]
    with serving.serve(archive, "fixed batches") as server:
        results = serving.measure(server, 40, 32, requests, clients=8)
    assert [each.error for each in results] == [None] * 16
    assert max(each.batch for each in results) > 1


@pytest.mark.slow
@pytest.mark.serving
def test_cold_start_on_a_real_torchserve(archive, tmp_path, monkeypatch, capsys):
    arguments = ["--archive", archive, "--results", tmp_path, "--steps", 4, "--size", 32, "--repeats", 1]
    monkeypatch.setattr("sys.argv", ["cold_start", *map(str, arguments)])
    cold_start.main()
    (row,) = read(tmp_path / "cold_start.jsonl")
    assert list(row["stages"]) == ["interpreter", "torch", "other imports", "load", "warm-up"]
    assert all(seconds["median"] > 0 for seconds in row["stages"].values())
    assert set(row["torchserve"]) == {"ready", "first face", "second face"}
    assert "| on TorchServe: ready" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.serving
def test_instant_on_a_real_torchserve(mapper_bundle, tmp_path):
    archive = build_archive(mapper_bundle, tmp_path / "store" / "voicestyle.mar")
    arguments = ["--archive", archive, "--results", tmp_path, "--size", 32, "--runs", 2, "--faces", 2]
    result = CliRunner().invoke(instant.main, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = read(tmp_path / "instant.jsonl")
    assert [(row["preset"], row["steps"], row["errors"]) for row in rows] == [("default", 6, 0), ("instant", 0, 0)]
    assert rows[0]["times_default"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert "| instant " in result.output
