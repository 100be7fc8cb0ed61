"""The settings of torch for a GPU, in processes of their own: they hold for all of a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from voicestyle.devices import DeviceError, preparation, prepare_device

ROOT = Path(__file__).parents[2]
# CUDA's calls are recorded; everything else is real.
PREPARE = """
import json, os, sys, warnings
import torch
from voicestyle.devices import prepare_device, preparation
calls = []
workspace = lambda: os.environ["CUBLAS_WORKSPACE_CONFIG"]
precision = lambda: torch.backends.cuda.matmul.fp32_precision
torch.cuda.set_device = lambda index: calls.append(f"set_device {index}, cuBLAS {workspace()}")
preparation._compute = lambda device: calls.append(f"compute on {device}, {precision()}")
prepare_device(sys.argv[1])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))  # has no deterministic form, on a CPU neither
    torch.ones(4, 3, 8, 8).mean().item()
    torch.nn.functional.conv2d(torch.ones(1, 3, 8, 8), torch.ones(2, 3, 3, 3))
backends = torch.backends
print(json.dumps({
    "calls": calls,
    "precision": [backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision,
                  backends.cudnn.rnn.fp32_precision],
    "cudnn": [backends.cudnn.deterministic, backends.cudnn.benchmark],
    "deterministic": [torch.are_deterministic_algorithms_enabled(),
                      torch.is_deterministic_algorithms_warn_only_enabled(),
                      torch.utils.deterministic.fill_uninitialized_memory],
    "threads": torch.get_num_threads(),
    "warnings": [str(each.message) for each in caught],
}))
"""


def prepared(device, **environment):
    inherited = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, device],
        env=inherited | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_on_a_gpu_float32_is_float32_and_results_are_reproducible():
    found = prepared("cuda:1")
    assert found["calls"] == ["set_device 1, cuBLAS :4096:8", "compute on cuda:1, ieee"]
    assert found["precision"] == ["ieee"] * 3
    assert found["cudnn"] == [True, False]
    assert found["deterministic"] == [True, True, False]
    (warning,) = found["warnings"]
    assert warning.startswith("put_ does not have a deterministic implementation")


def test_cuda_without_a_number_is_the_first_gpu_and_a_given_workspace_is_kept():
    found = prepared("cuda", CUBLAS_WORKSPACE_CONFIG=":16:8")
    assert found["calls"][0] == "set_device 0, cuBLAS :16:8"


def test_on_a_cpu_only_the_threads_are_set():
    found = prepared("cpu", OMP_NUM_THREADS="2")
    assert found["calls"] == found["warnings"] == []
    assert found["cudnn"][0] is False
    assert found["deterministic"][:2] == [False, False]
    assert found["threads"] == 2


def test_a_cpu_without_a_number_of_threads_uses_all_cores_of_this_process(monkeypatch):
    set_to = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5})
    prepare_device("cpu")
    assert set_to == [3]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with"),
        torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB"),
        torch.cuda.DeferredCudaCallError("CUDA call failed lazily at initialization\n\nCUDA call was"),
    ],
)
def test_a_gpu_that_cannot_compute_is_a_device_error_in_one_line(monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setenv(preparation.WORKSPACE, ":4096:8")
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(preparation, "_set_arithmetic", lambda: None)
    monkeypatch.setattr(preparation, "_compute", fail)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(DeviceError) as caught:
        prepare_device("cuda:1")
    message = str(caught.value)
    assert message.startswith(f"cuda:1 must be able to compute, and it failed: torch {torch.__version__} is built for")
    assert str(error).splitlines()[0].partition(". ")[0] in message
    assert "\n" not in message


def test_the_first_computation_is_checked(monkeypatch):
    preparation._compute(torch.device("cpu"))
    monkeypatch.setattr(torch, "ones", lambda *size, device: torch.full(size, 1.5, device=device))
    with pytest.raises(RuntimeError, match="must sum to 4096, got 9216"):
        preparation._compute(torch.device("cpu"))


@pytest.mark.gpu
def test_a_gpu_can_be_prepared_in_a_process_that_serves():
    code = "from voicestyle.devices.__main__ import main; raise SystemExit(main())"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == 0
