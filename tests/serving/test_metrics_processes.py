"""Workers that share a folder of metrics: their counters outlive them, their gauges do not."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from voicestyle.serving.metrics_endpoint import CONTENT_TYPE, exposition, in_flight, running_workers

ROOT = Path(__file__).parent.parent.parent
# Runs the lines of Python that it reads.
WORKER = """
import sys
from types import SimpleNamespace
from voicestyle.worker.metrics import Metrics
metrics = Metrics()
assert "torch" not in sys.modules
face = SimpleNamespace(similarity=0.5, first_similarity=0.1, audio_seconds=4.0, speech_seconds=3.0,
                       timings=dict(decode=0.01, optimise=2.0), settings=SimpleNamespace(steps=4))
def describe(version):
    computing = SimpleNamespace(device="cpu", dtype="float32", batching="sequential", graphs="off", capacity=8)
    metrics.describe("demo", version, computing)
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Worker:
    """A process that uses Metrics as a TorchServe worker does."""

    def __init__(self, folder):
        environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], env=environment, stdin=pipe, stdout=pipe, text=True, bufsize=1
        )
        assert self.process.stdout.readline() == "ready\n"

    @property
    def pid(self):
        return self.process.pid

    def start(self, line):
        self.process.stdin.write(line + "\n")

    def end(self):
        assert self.process.stdout.readline() == "done\n"

    def do(self, line):
        self.start(line)
        self.end()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait() == -signal.SIGKILL


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "metrics"  # made by the first worker


@pytest.fixture
def worker(folder):
    workers = []

    def make():
        workers.append(Worker(folder))
        return workers[-1]

    yield make
    for each in workers:
        each.process.kill()
        each.process.communicate()


@pytest.fixture
def scrape(folder):
    def values(*running):
        """Sample values by name and labels, as a Prometheus server would read them."""
        text = exposition(folder, [each.pid for each in running]).decode()
        samples = [sample for family in parse(text) for sample in family.samples]
        keys = [(sample.name.removeprefix("voicestyle_"), *sorted(sample.labels.values())) for sample in samples]
        values = dict(zip(keys, (sample.value for sample in samples), strict=True))
        assert len(values) == len(samples)
        return values

    return values


def names(values):
    return {key[0] for key in values}


GAUGES = {"live_requests", "waiting_requests", "capacity_requests", "resident_memory_bytes", "build_info"}


def test_killed_workers_keep_counters_and_lose_gauges(worker, scrape, folder):
    first = worker()
    first.do("describe('1')")
    first.do("[metrics.received('http') for _ in range(5)]; metrics.finished('http', face, 8.0)")
    first.do("metrics.refused('http', 'no_speech', 0.02); metrics.stepped(3, 10, 1.0); metrics.occupancy(2, 1)")
    before = scrape(first)
    assert names(before) >= GAUGES
    assert (before["live_requests",], before["waiting_requests",], before["capacity_requests",]) == (2, 1, 8)
    first.kill()

    between = scrape()
    assert not names(between) & GAUGES
    assert between == {key: value for key, value in before.items() if key[0] not in GAUGES}

    second = worker()
    second.do("describe('2'); metrics.received('grpc'); metrics.received('http')")
    second.do("metrics.finished('http', face, 12.0); metrics.stepped(3, 5, 1.0); metrics.occupancy(1, 0)")
    after = scrape(second)
    assert (after["received_total", "http"], after["received_total", "grpc"]) == (6, 1)
    assert after["requests_total", "face", "http"] == 2
    assert after["refusals_total", "http", "no_speech"] == 1
    assert after["request_seconds_sum", "face", "http"] == 20.0
    assert (after["request_seconds_count", "face", "http"], after["request_seconds_count", "http", "refused"]) == (2, 1)
    assert after["request_seconds_bucket", "10.0", "face", "http"] == 1
    assert (after["stage_seconds_sum", "optimise"], after["similarity_count",]) == (4.0, 2)
    assert (after["steps_total",], after["request_steps_total",], after["worker_starts_total",]) == (15, 45, 2)
    assert (after["live_requests",], after["waiting_requests",], after["capacity_requests",]) == (1, 0, 8)


def test_build_info_describes_running_workers_only(worker, scrape):
    first = worker()
    first.do("describe('1')")
    first.kill()
    second = worker()
    second.do("describe('2')")
    (info,) = [key for key in scrape(second) if key[0] == "build_info"]
    assert "2" in info
    third = worker()  # with the same build, as while one worker replaces another
    third.do("describe('2')")
    values = scrape(second, third)
    assert [value for key, value in values.items() if key[0] == "build_info"] == [1.0]
    assert values["capacity_requests",] == 16


def test_lost_requests_are_received_minus_answered(worker, scrape, folder):
    for number in range(3):
        each = worker()
        each.do("[metrics.received('http') for _ in range(4)]; metrics.finished('http', face, 1.0)")
        if number < 2:
            each.do("metrics.cancelled('http'); metrics.occupancy(2, 0)")
            each.kill()
        else:
            each.do("metrics.failed('http'); metrics.occupancy(1, 1)")
    values = scrape(each)
    answered = sum(value for key, value in values.items() if key[0] == "requests_total")
    assert (values["received_total", "http"], answered) == (12, 6)
    assert values["received_total", "http"] - answered - in_flight(folder, [each.pid]) == 4


def test_in_flight_counts_requests_of_running_workers(worker, folder):
    assert in_flight(folder, []) == 0
    first, second = worker(), worker()
    assert in_flight(folder, [first.pid, second.pid]) == 0
    first.do("metrics.received('grpc')")  # while its iteration goes on
    assert in_flight(folder, [first.pid, second.pid]) == 1
    first.do("metrics.occupancy(1, 0)")
    second.do("metrics.occupancy(3, 2)")
    assert in_flight(folder, [first.pid, second.pid]) == 6
    second.kill()
    assert in_flight(folder, [first.pid]) == 1
    first.do("metrics.finished('grpc', face, 1.0); metrics.occupancy(0, 0)")
    assert in_flight(folder, [first.pid]) == 0


def test_gauges_return_after_a_wrong_death_report(worker, scrape, folder):
    one = worker()
    one.do("describe('1'); metrics.occupancy(2, 0)")
    assert not names(scrape()) & GAUGES
    one.do("metrics.occupancy(3, 0)")
    assert scrape(one)["live_requests",] == 3


def test_empty_metric_files_are_skipped(worker, scrape, folder):
    one = worker()
    one.do("metrics.received('http')")
    for name in ("counter_1.db", "histogram_1.db", f"gauge_livemax_{one.pid}.db"):
        (folder / name).touch()
    assert scrape(one)["received_total", "http"] == 1


@contextmanager
def busy(worker, line):
    worker.start(line)
    yield
    worker.end()


def test_counters_never_fall_in_concurrent_scrapes(worker, scrape):
    one = worker()
    seen = []
    # New labels make the files grow while they are read.
    with busy(one, "[(metrics.received('http'), metrics.refused('http', f'code{n}')) for n in range(3000)]"):
        while one.process.poll() is None and (not seen or seen[-1] < 3000):
            seen.append(scrape(one)["received_total", "http"])
    assert seen == sorted(seen)


def test_without_metric_files_the_result_is_empty(tmp_path):
    assert exposition(tmp_path, [1]) == exposition(tmp_path / "missing", [1]) == b""
    assert in_flight(tmp_path / "missing", [1]) == 0


def test_content_type_is_prometheus_text_format():
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_running_workers_are_described_one_by_one(worker, folder):
    first, second, starting = worker(), worker(), worker()
    first.do("describe('1')")
    second.do("describe('1')")
    dead = worker()
    dead.do("describe('0')")
    dead.kill()
    expected = {
        "model": "demo",
        "bundle_version": "1",
        "device": "cpu",
        "dtype": "float32",
        "batching": "sequential",
        "graphs": "off",
        "capacity": 8,
    }
    pids = [first.pid, second.pid, starting.pid]
    assert running_workers(folder, pids) == [expected, expected]
    assert running_workers(folder, []) == []
    assert running_workers(folder.parent / "none", pids) == []
