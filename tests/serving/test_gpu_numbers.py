"""Which GPU TorchServe gives to which worker, by a real TorchServe and an nvidia-smi that lists two GPUs."""

import os
import re
import signal

import pytest

from tests.support.fake_gpus import fake_smi, with_model_config
from tests.support.serve_process import until
from voicestyle.serving.metrics_endpoint import running_workers

pytestmark = [pytest.mark.serving, pytest.mark.long]


@pytest.fixture
def serve(fragile_archive, tmp_path, monkeypatch):
    """`serve(workers)`: a TorchServe of that many workers on a machine whose nvidia-smi lists two GPUs."""
    from voicestyle.serving import TorchServe

    monkeypatch.setenv("PATH", f"{fake_smi(tmp_path, gpus=2)}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("VOICESTYLE_DEVICE", "cpu")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def started(workers):
        archive = with_model_config(
            fragile_archive, tmp_path / "voicestyle.mar", minWorkers=workers, maxWorkers=workers
        )
        return TorchServe(archive)

    return started


def gpu_numbers(server):
    """The number that TorchServe gave each running worker, by process id."""
    workers = [worker for worker in server.management.workers() if worker["status"] == "READY"]
    return {worker["pid"]: int(re.search(r"gpuId::(\d+)", worker["gpuUsage"])[1]) for worker in workers}


def test_each_of_two_workers_gets_its_own_gpu_and_a_new_one_that_of_the_dead_one(serve):
    with serve(2) as server:
        before = until(lambda: len(found := gpu_numbers(server)) == 2 and found, "two workers")
        assert sorted(before.values()) == [0, 1]
        described = running_workers(server.run.metrics, before)
        assert [worker["device"] for worker in described] == ["cpu", "cpu"]
        dead, left = before
        os.kill(dead, signal.SIGKILL)
        after = until(lambda: dead not in (found := gpu_numbers(server)) and len(found) == 2 and found, "a new worker")
        assert after.pop(left) == before[left]
        assert list(after.values()) == [before[dead]]


def test_one_worker_of_two_gpus_gets_the_second(serve):
    with serve(1) as server:
        assert list(gpu_numbers(server).values()) == [1]


@pytest.mark.parametrize(("visible", "number"), [("7", [0]), ("2,3", [1]), ("-1", [0])])
def test_cuda_visible_devices_counts_instead_of_nvidia_smi(serve, monkeypatch, visible, number):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with serve(1) as server:
        assert list(gpu_numbers(server).values()) == number
