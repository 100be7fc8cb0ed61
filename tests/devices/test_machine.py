"""What is found of CUDA: real nvidia-smi processes, the kernel's file, and this build of torch."""

import pytest
import torch

from tests.support.fake_gpus import FakeMachine, fake_smi
from voicestyle.devices import machine as machine_module
from voicestyle.devices.machine import DRIVER, Gpus, Machine, NvidiaSmi, first_sentence


def with_smi(tmp_path, **values):
    return Machine(proc=tmp_path / "proc", environment={"PATH": str(fake_smi(tmp_path, **values))})


def test_nvidia_smi_tells_names_and_driver(tmp_path):
    found = with_smi(tmp_path, gpus=2, name="NVIDIA H100, 80GB", driver="580.65.06").nvidia_smi()
    assert found == NvidiaSmi(("NVIDIA H100, 80GB",) * 2, "580.65.06")
    assert str(found) == "lists NVIDIA H100, 80GB, NVIDIA H100, 80GB"


def test_nvidia_smi_without_gpus_lists_none(tmp_path):
    found = with_smi(tmp_path, gpus=0, says="").nvidia_smi()
    assert (found.names, found.driver, str(found)) == ((), None, "lists no GPU")


def test_a_failing_nvidia_smi_is_quoted_in_one_line(tmp_path):
    said = "NVIDIA-SMI has failed because it could not communicate with the driver. Make sure it runs.\\nAdvice"
    found = with_smi(tmp_path, status=9, says=said).nvidia_smi()
    expected = "NVIDIA-SMI has failed because it could not communicate with the driver"
    assert str(found) == f"ended with status 9 and said {expected!r}"
    assert found.driver is None


def test_an_nvidia_smi_that_hangs_is_given_up(tmp_path, monkeypatch):
    folder = fake_smi(tmp_path)
    (folder / "nvidia-smi").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    monkeypatch.setattr(machine_module, "SMI_SECONDS", 0.2)
    assert str(Machine(environment={"PATH": str(folder)}).nvidia_smi()) == "gave no answer in 0 s"


def test_no_nvidia_smi_is_said_and_one_for_another_machine_too(tmp_path):
    assert str(Machine(environment={"PATH": str(tmp_path)}).nvidia_smi()) == "not found"
    folder = fake_smi(tmp_path)
    (folder / "nvidia-smi").write_bytes(b"\x7fELF of another machine")
    assert str(Machine(environment={"PATH": str(folder)}).nvidia_smi()) == "could not be run: Exec format error"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs)\n", "580.65.06"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.90  Mon\nGCC version:  gcc 12.3.0\n", "550.90"),
    ],
)
def test_the_driver_is_read_from_the_kernel_first(tmp_path, text, version):
    assert DRIVER.search(text)[0] == version
    file = tmp_path / "driver" / "nvidia" / "version"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert Machine(proc=tmp_path).driver(NvidiaSmi(driver="1.2")) == version
    file.write_text("unreadable\n")
    assert Machine(proc=tmp_path).driver(NvidiaSmi(driver="470.57.02")) == "470.57.02"
    assert Machine(proc=tmp_path / "none").driver(NvidiaSmi()) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_this_torch_says_why_it_can_use_no_gpu():
    found = Machine().gpus()
    assert found.usable == 0
    assert found.reason in ("Torch not compiled with CUDA enabled", "Found no NVIDIA driver on your system")


@pytest.mark.parametrize("error", [RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError])
def test_any_error_of_torch_s_start_is_a_reason(monkeypatch, error):
    def fail():
        raise error("The driver is too old (found version 12020). Please update")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", fail)
    assert Machine().gpus() == Gpus(0, "The driver is too old (found version 12020)")


def test_usable_gpus_are_counted_by_torch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert Machine().gpus() == Gpus(3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("CUDA error: no kernel image\nCUDA kernel errors might be\n", "CUDA error: no kernel image"),
        ("CUDA unknown error - e.g. changing env variable. Setting", "CUDA unknown error - e.g. changing env variable"),
        ("", "ValueError"),
    ],
)  # fmt: skip
def test_an_error_is_cut_to_its_first_sentence(text, sentence):
    assert first_sentence(ValueError(text)) == sentence


def test_a_cpu_build_has_no_reason_beside_itself(tmp_path):
    findings = FakeMachine(proc=tmp_path, environment={"PATH": ""}, build=None).findings("Torch not compiled")
    assert "Torch not compiled" not in findings
    assert " is a CPU build; NVIDIA driver: none; nvidia-smi: not found; install" in findings
