"""Which device a service runs on: the one that was asked for, or an error that says what was found instead."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Final

from voicestyle.devices.machine import Machine

log = logging.getLogger("voicestyle.devices")

AUTO: Final = "auto"
CPU: Final = "cpu"
CUDA: Final = "cuda"
DEVICES: Final = (AUTO, CPU, CUDA)  # what can be asked for
VARIABLE: Final = "VOICESTYLE_DEVICE"


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message is one line that says what was found."""


def asked_device(configured: str, environment: Mapping[str, str] | None = None) -> str:
    """The device that is asked for: the variable `VOICESTYLE_DEVICE` if it is set, else `configured`.

    Returns one of `DEVICES`. Raises DeviceError for another value.
    """
    given = (os.environ if environment is None else environment).get(VARIABLE)
    name, value = ("device", configured) if given is None else (VARIABLE, given)
    if value not in DEVICES:
        raise DeviceError(f"{name} must be one of {', '.join(DEVICES)}, got {value!r}")
    return value


def choose_device(asked: str, gpu: int | str | None, workers: int = 1, machine: Machine | None = None) -> str:
    """Return "cpu" or "cuda:N". `auto` is CUDA where torch can use a GPU.

    asked: one of `DEVICES`. gpu: the number that TorchServe gave this worker, if any; it counts GPUs by nvidia-smi or
    CUDA_VISIBLE_DEVICES. workers: how many workers the service has.

    Raises:
        DeviceError: CUDA was asked for and torch can use no GPU; torch does not have the GPU of this number; or several
            workers without numbers would share the first of several GPUs.
    """
    if asked == CPU:
        return CPU
    machine = machine or Machine()
    found = machine.gpus()
    if not found.usable and asked == AUTO:
        if traces := machine.traces() + ([] if gpu is None else [f"GPU {gpu} of TorchServe"]):
            log.warning(
                "device auto is the CPU, although there are traces of an NVIDIA GPU or driver (%s): %s; "
                "%s=cuda makes this an error",
                ", ".join(traces),
                machine.findings(found.reason),
                VARIABLE,
            )
        return CPU
    if gpu is None and workers > 1 and found.usable > 1:
        raise DeviceError(
            f"each of several workers needs the number of its GPU, or all would share the first one; TorchServe gave "
            f"{workers} workers none, and torch can use {found.usable} GPUs. It counts GPUs by nvidia-smi: see that it "
            f"runs, or set minWorkers and maxWorkers to 1"
        )
    return f"{CUDA}:{usable_gpu(int(gpu or 0), machine)}"


def usable_gpu(index: int, machine: Machine | None = None) -> int:
    """Return `index` if torch can use the GPU with this number. Raises DeviceError with what was found."""
    machine = machine or Machine()
    found = machine.gpus()
    if not found.usable:
        raise DeviceError(f"a CUDA device was asked for, but torch can use none: {machine.findings(found.reason)}")
    if index >= found.usable:
        raise DeviceError(
            f"GPU {index} was asked for, but torch can use only {found.usable}, from GPU 0 on: {machine.findings(None)}"
        )
    return index
