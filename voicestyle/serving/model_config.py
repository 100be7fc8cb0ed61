"""The model config in an archive: what TorchServe and the worker will be told."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voicestyle.errors import ServerError


def read_model_config(archive: Path) -> Mapping[str, Any]:
    """The model config of an archive. Raises ServerError for a file that is no archive."""
    import yaml  # of the extra `serve`, as TorchServe is

    try:
        with zipfile.ZipFile(archive) as opened:
            manifest: dict[str, Any] = json.loads(opened.read("MAR-INF/MANIFEST.json"))
            config: dict[str, Any] = yaml.safe_load(opened.read(manifest["model"]["configFile"]))
        if isinstance(config, dict):
            return config
        problem = f"its model config is {config!r}"
    except (OSError, zipfile.BadZipFile, LookupError, TypeError, ValueError, yaml.YAMLError) as error:
        problem = " ".join(repr(error).split())
    raise ServerError(f"{archive} must be an archive that `voicestyle archive` wrote; {problem}")
