"""The three ways to serve an archive, and the benchmark that compares them."""

import asyncio
import json
import logging
import zipfile

import pytest
import yaml
from click.testing import CliRunner

from benchmarks import clients, cold_start, serving
from benchmarks.fixed_batches import HELD, FixedBatchHandler
from benchmarks.load import Answered, Asked
from benchmarks.modes import MODES, derive
from handlers import voicestyle_handler
from tests.support.fake_torchserve import FakePipeline, Frontend
from voicestyle.worker.service_config import ServiceConfig


@pytest.fixture(scope="module")
def archive(tiny_bundle, tmp_path_factory):
    from voicestyle.archive import build_archive

    return build_archive(tiny_bundle, tmp_path_factory.mktemp("store") / "voicestyle.mar")


@pytest.mark.parametrize("name", MODES)
def test_a_mode_is_the_same_archive_under_another_config(archive, tmp_path, name):
    derived = derive(archive, MODES[name], tmp_path)
    with zipfile.ZipFile(archive) as before, zipfile.ZipFile(derived) as after:
        assert set(before.namelist()) <= set(after.namelist())
        changed = {entry for entry in before.namelist() if before.read(entry) != after.read(entry)}
        assert changed <= {"model_config.yaml", "MAR-INF/MANIFEST.json"}
        config = yaml.safe_load(after.read("model_config.yaml"))
        handler = json.loads(after.read("MAR-INF/MANIFEST.json"))["model"]["handler"]
        assert handler in after.namelist()
        if name == "fixed batches":
            assert after.read("handlers/voicestyle_handler.py") == before.read("voicestyle_handler.py")
            assert handler == "fixed_batches.py"
    limits = ServiceConfig.parse(config["handler"])
    assert limits.live_requests == (1 if name == "one at a time" else 8)
    assert limits.live_requests + limits.queue >= config["batchSize"], "nobody is to be refused"
    assert config["continuousBatching"] is (name != "fixed batches")


@pytest.fixture
def fixed(monkeypatch, tmp_path):
    """A frontend whose handler takes fixed batches; whatever it is asked waits until the next call."""
    for name in (None, "voicestyle"):  # the handler sets levels for its own process; so they are put back
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "level", logger.level)
    pipeline = FakePipeline()
    monkeypatch.setattr(voicestyle_handler.Pipeline, "load", pipeline.loaded)
    frontend = Frontend(FixedBatchHandler(), model_dir=tmp_path)
    frontend.pipeline = pipeline
    return frontend


def test_a_fixed_batch_is_answered_at_once_and_whole(fixed):
    fixed.post("a", b"first", X_VoiceStyle_Steps=3)
    fixed.post("b", b"second", X_VoiceStyle_Steps=9)
    fixed.post("c", b"text")
    fixed.call()
    assert set(fixed.responses) == {"a", "b", "c"}
    assert fixed.responses["a"].body == b"png of first"
    assert fixed.responses["b"].body == b"png of second"
    assert fixed.responses["c"].status == 415
    held = {key: float(answer.headers[HELD]) for key, answer in fixed.responses.items()}
    assert held["c"] >= held["a"] >= held["b"] >= 0
    assert max(fixed.pipeline.calls) == 2
    assert fixed.pipeline.live == 0


def test_a_row_from_its_runs():
    case = serving.Case("joining batch", 0.7)
    for shift in (0.0, 1.0):
        faces = [Answered(sent=i, done=i + 2 + shift, to_first_step=0.5 + shift, shared=i % 2 + 1) for i in range(10)]
        case.runs.append([*faces, Answered(sent=10, done=10.5, error="status 503")])
    row = case.row()
    assert row["requests"] == 22
    assert row["mean_batch"] == 1.5
    assert row["errors"] == {"status 503": 2}
    assert row["answer_p99"] == {"median": 2.5, "min": 2.0, "max": 3.0}
    assert row["first_step_p50"] == {"median": 1.0, "min": 0.5, "max": 1.5}
    assert row["faces_per_minute"]["max"] == pytest.approx(60 * 10 / 11, rel=1e-3)


def test_a_case_without_faces_has_a_row():
    case = serving.Case("joining batch", 0.7, [[Answered(0, 1, error="ReadError")]])
    assert case.row()["errors"] == {"ReadError": 1}
    assert serving.Case("joining batch", 0.7).row()["runs"] == 0


def invoke(command, *arguments):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.serving
def test_all_modes_on_a_real_torchserve(archive, tmp_path):
    output = tmp_path / "serving.jsonl"
    small = ["--archive", archive, "--steps", 4, "--size", 32, "--output", output]
    invoke(serving.main, *small, "--share", 0.5, "--requests", 6)
    found = rows(output)
    assert [row["mode"] for row in found] == list(MODES)
    for row in found:
        assert (row["requests"], row["errors"]) == (6, {})
        assert 0 < row["first_step_p50"]["median"] < row["answer_p50"]["median"] <= row["answer_p99"]["median"]
        assert row["mean_batch"] == 1 or row["mode"] != "one at a time"


@pytest.mark.slow
@pytest.mark.serving
def test_fixed_batches_are_batches_on_a_real_torchserve(archive):
    with serving.serve(archive, MODES["fixed batches"]) as server:
        answers = asyncio.run(serving.run_closed(server.url, 16, Asked(steps=40, size=32), 8))
    assert [each.error for each in answers] == [None] * 16
    assert max(each.shared for each in answers) > 1


@pytest.mark.slow
@pytest.mark.serving
def test_clients_and_cold_start_on_a_real_torchserve(archive, tmp_path):
    output = tmp_path / "rows.jsonl"
    small = ["--archive", archive, "--steps", 4, "--size", 32, "--repeats", 1, "--output", output]
    invoke(clients.main, *small)
    invoke(cold_start.main, *small)
    one, four, start = rows(output)
    assert (one["clients"], one["errors"], four["clients"], four["errors"]) == (1, 0, 4, 0)
    assert list(start["stages"]) == ["interpreter", "torch", "other imports", "load", "warm-up"]
    assert all(seconds["median"] > 0 for seconds in start["stages"].values())
    assert set(start["torchserve"]) == {"ready", "first face", "second face"}
