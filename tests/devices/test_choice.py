"""Which device is chosen, on machines whose torch can use some GPUs or none."""

import logging

import pytest

from tests.support.fake_gpus import FakeMachine, fake_smi
from voicestyle.devices import AUTO, DeviceError, asked_device, choose_device, usable_gpu

TOO_OLD = "The NVIDIA driver on your system is too old (found version 12020)"


@pytest.fixture
def machine(tmp_path):
    """`machine(count, ...)`: one without traces of a GPU but for those that the test adds."""
    (tmp_path / "dev").mkdir()
    empty = {"dev": tmp_path / "dev", "proc": tmp_path / "proc", "environment": {"PATH": ""}}

    def made(count=0, **values):
        return FakeMachine(**(empty | {"count": count} | values))

    return made


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "cuda"),
        ({"VOICESTYLE_DEVICE": "cpu"}, "cpu"),
        ({"VOICESTYLE_DEVICE": "auto"}, "auto"),
        ({"VOICESTYLE_DEVICE": "cuda"}, "cuda"),
    ],
)
def test_the_variable_overrides_the_section(environment, expected):
    assert asked_device("cuda", environment) == expected


@pytest.mark.parametrize("value", ["gpu", "cuda:1", "CUDA", ""])
def test_an_invalid_variable_is_an_error_with_the_rule_and_the_value(value):
    with pytest.raises(DeviceError, match=f"^VOICESTYLE_DEVICE must be one of auto, cpu, cuda, got '{value}'$"):
        asked_device(AUTO, {"VOICESTYLE_DEVICE": value})


def test_an_invalid_device_of_the_section_is_an_error():
    with pytest.raises(DeviceError, match="^device must be one of auto, cpu, cuda, got 'tpu'$"):
        asked_device("tpu", {})


@pytest.mark.parametrize("asked", ["auto", "cuda"])
@pytest.mark.parametrize(
    ("gpu", "workers", "count", "expected"),
    [(0, 1, 1, "cuda:0"), (1, 2, 2, "cuda:1"), ("1", 1, 2, "cuda:1"), (None, 1, 1, "cuda:0"), (None, 1, 4, "cuda:0")],
)
def test_a_gpu_that_torch_can_use_is_taken_by_its_number_or_the_first(machine, asked, gpu, workers, count, expected):
    assert choose_device(asked, gpu, workers, machine(count)) == expected


def test_cpu_is_the_cpu_without_a_look_at_the_gpus():
    assert choose_device("cpu", 0, 1, machine=object()) == "cpu"


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_several_workers_without_numbers_never_share_the_first_of_several_gpus(machine, asked):
    message = "TorchServe gave 2 workers none, and torch can use 4 GPUs"
    with pytest.raises(DeviceError, match=message):
        choose_device(asked, None, 2, machine(4))
    assert choose_device(asked, None, 2, machine(1)) == "cuda:0"  # the only one: nothing else was possible


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_number_that_torch_does_not_have_is_an_error(machine, asked):
    with pytest.raises(DeviceError, match="^GPU 1 was asked for, but torch can use only 1, from GPU 0 on: torch"):
        choose_device(asked, 1, 2, machine(1))


def test_cuda_without_a_gpu_is_one_line_with_all_that_was_found(machine, tmp_path):
    path = {"PATH": str(fake_smi(tmp_path, gpus=2, driver="535.104.05"))}
    with pytest.raises(DeviceError) as caught:
        choose_device("cuda", 0, 1, machine(reason=TOO_OLD, environment=path))
    import torch

    assert str(caught.value) == (
        "a CUDA device was asked for, but torch can use none: "
        f"torch {torch.__version__} is built for CUDA 13.0 and says {TOO_OLD!r}; NVIDIA driver: 535.104.05; "
        "nvidia-smi: lists NVIDIA L4, NVIDIA L4; "
        "this build needs driver 580 or newer, or use an image with torch from the index of an older CUDA"
    )


@pytest.mark.parametrize(
    ("build", "driver", "remedy"),
    [
        (None, None, "install a CUDA build of torch, which the target gpu of the image has"),
        ("13.0", None, "this build needs driver 580 or newer, made visible here by NVIDIA's container runtime"),
        ("12.6", "470.57.02", "this build needs driver 525 or newer, or use an image"),
        ("99.1", None, "this build needs a driver for its CUDA, made visible here"),
    ],
)
def test_the_error_says_what_to_do(machine, tmp_path, build, driver, remedy):
    path = {"PATH": str(fake_smi(tmp_path, driver=driver))} if driver else {"PATH": ""}
    with pytest.raises(DeviceError) as caught:
        usable_gpu(0, machine(build=build, reason="no", environment=path))
    assert str(caught.value).rpartition("; ")[2].startswith(remedy)


def test_a_driver_that_is_new_enough_is_no_advice_to_update_it(machine, tmp_path):
    environment = {"PATH": str(fake_smi(tmp_path)), "CUDA_VISIBLE_DEVICES": "-1"}
    with pytest.raises(DeviceError) as caught:
        usable_gpu(0, machine(reason="No CUDA GPUs are available", environment=environment))
    assert str(caught.value).endswith("nvidia-smi: lists NVIDIA L4; CUDA_VISIBLE_DEVICES: '-1'")


def test_auto_without_any_trace_of_a_gpu_is_the_cpu_without_a_word(machine, caplog):
    assert choose_device("auto", None, 1, machine()) == "cpu"
    assert not caplog.records


@pytest.mark.parametrize("trace", ["driver", "device file", "nvidia-smi", "TorchServe"])
def test_auto_warns_of_each_trace_of_a_gpu_that_torch_cannot_use(machine, tmp_path, caplog, trace):
    gpu, values = None, {}
    if trace == "driver":
        (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
        expected = tmp_path / "proc/driver/nvidia/version"
        expected.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n")
    elif trace == "device file":
        expected = tmp_path / "dev" / "nvidia0"
        expected.touch()
    elif trace == "nvidia-smi":
        expected, values = "nvidia-smi", {"environment": {"PATH": str(fake_smi(tmp_path, status=9, says="NVML: no"))}}
    else:
        expected, gpu = "GPU 0 of TorchServe", 0
    assert choose_device("auto", gpu, 1, machine(reason=TOO_OLD, **values)) == "cpu"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert f"traces of an NVIDIA GPU or driver ({expected}): torch " in message
    assert TOO_OLD in message
    assert ("535.104.05" in message) == (trace == "driver")
    assert ("ended with status 9 and said 'NVML: no'" in message) == (trace == "nvidia-smi")
    assert message.endswith("; VOICESTYLE_DEVICE=cuda makes this an error")
    assert "\n" not in message
