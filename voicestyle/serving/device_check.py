"""The device that an archive asks for, checked before TorchServe starts."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from voicestyle.devices import AUTO, DeviceError, asked_device
from voicestyle.devices.choice import CUDA
from voicestyle.errors import ServerError
from voicestyle.serving.model_config import read_model_config
from voicestyle.worker.service_config import SECTION

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 120.0  # torch loads its CUDA libraries and makes a context in seconds; a lost GPU may hang
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
JAVA_NUMBERS: Final = re.compile(r"([+-]?\d+(,|$))*")  # what TorchServe reads; with anything else it does not start
COMMAND: Final = (sys.executable, "-W", "ignore", "-m", "voicestyle.devices")


def check_device(archive: Path, command: tuple[str, ...] = COMMAND, seconds: float = CHECK_SECONDS) -> None:
    """If a CUDA device is asked for, by the variable VOICESTYLE_DEVICE or the archive, see that it can be used.

    Another process looks, so that this one holds no memory of the GPU. None is started for `cpu` and `auto`.

    Raises ServerError with one line that says what was found, or for an invalid value.
    """
    visible = os.environ.get(VISIBLE, "")
    if not JAVA_NUMBERS.fullmatch(visible):
        raise ServerError(
            f"{VISIBLE} must be numbers with commas between, because TorchServe reads it, got {visible!r}"
        )
    try:
        asked = asked_device(configured_device(archive))
    except DeviceError as error:
        raise ServerError(str(error)) from None
    if asked != CUDA:
        return
    log.info("device cuda: checking that torch can use a GPU")
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise ServerError(f"a CUDA device was asked for, but torch could not use one within {seconds:.0f} s") from None
    if done.returncode == 2 and done.stdout.strip():
        raise ServerError(done.stdout.strip().splitlines()[-1])
    if done.returncode != 0:  # it died, for example inside the driver
        last = next(reversed(done.stderr.strip().splitlines()), "")
        raise ServerError(f"the check of the CUDA device ended with status {done.returncode}: {last}")


def configured_device(archive: Path) -> str:
    """The `device` in the model config of an archive. Raises ServerError for a file that is no archive."""
    section = read_model_config(archive).get(SECTION)
    # The worker validates the section: by the code of the archive, which may be another version.
    return str(section.get("device", AUTO)) if isinstance(section, Mapping) else AUTO
