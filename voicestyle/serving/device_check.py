"""The device that an archive asks for, checked before TorchServe starts."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from voicestyle.devices import AUTO, DeviceError, asked_device
from voicestyle.devices.choice import CUDA
from voicestyle.errors import ServerError
from voicestyle.worker.service_config import SECTION

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 120.0  # torch loads its CUDA libraries and makes a context in seconds; a lost GPU may hang
COMMAND: Final = (sys.executable, "-W", "ignore", "-m", "voicestyle.devices")


def check_device(archive: Path, command: tuple[str, ...] = COMMAND, seconds: float = CHECK_SECONDS) -> None:
    """If a CUDA device is asked for, by the variable VOICESTYLE_DEVICE or the archive, see that it can be used.

    Another process looks, so that this one holds no memory of the GPU. Nothing is done for `cpu` and `auto`.

    Raises ServerError with one line that says what was found, or for an invalid value.
    """
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
    if done.returncode != 0:
        # Without a line of its own the process died, for example of a signal of the driver.
        said = done.stdout.strip() or " ".join(done.stderr.split()[-40:])
        raise ServerError(said if done.returncode == 2 else f"the check of the CUDA device failed: {said}")


def configured_device(archive: Path) -> str:
    """The `device` in the model config of an archive. Raises ServerError for a file that is no archive."""
    import yaml  # of the extra `serve`, as TorchServe is

    try:
        with zipfile.ZipFile(archive) as opened:
            manifest: dict[str, Any] = json.loads(opened.read("MAR-INF/MANIFEST.json"))
            config: object = yaml.safe_load(opened.read(manifest["model"]["configFile"]))
    except (OSError, zipfile.BadZipFile, LookupError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ServerError(f"{archive} must be an archive that `voicestyle archive` wrote; {error!r}") from None
    section = config.get(SECTION) if isinstance(config, Mapping) else None
    # The worker validates the section: by the code of the archive, which may be another version.
    return str(section.get("device", AUTO)) if isinstance(section, Mapping) else AUTO
