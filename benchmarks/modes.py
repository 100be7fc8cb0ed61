"""The ways in which one archive can be served: the same bundle and code under another model config."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from voicestyle.archive import HANDLER, MODEL, MODEL_CONFIG

CONFIG: Final = Path(MODEL_CONFIG).name
MANIFEST: Final = "MAR-INF/MANIFEST.json"
FIXED: Final = Path(__file__).with_name("fixed_batches.py")
PLACES: Final = 8  # faces on their way at once, in a fixed batch or in the joining one
HANDED_OVER: Final = 32  # requests that the handler knows of: on their way, and waiting
# Nobody is refused and no worker is stopped: the time that a request waits is what is measured.
ENDLESS: Final = {"jobQueueSize": 10_000, "responseTimeout": 36_000}


@dataclass(frozen=True)
class Mode:
    """frontend: settings of TorchServe. limits: of the service. handler: a file to put in the handler's place."""

    frontend: Mapping[str, Any] = field(default_factory=dict[str, Any])
    limits: Mapping[str, Any] = field(default_factory=dict[str, Any])
    handler: Path | None = None


def places(count: int) -> dict[str, int]:
    """Limits of so many places, with room to wait for all that TorchServe hands over."""
    return {"live_requests": count, "queue": HANDED_OVER - count}


JOINING: Final = "joining batch"
MODES: Mapping[str, Mode] = {
    "one at a time": Mode(frontend={"batchSize": HANDED_OVER}, limits=places(1)),
    "fixed batches": Mode(
        # maxBatchDelay in ms is TorchServe's default. A batch is one turn, however long.
        frontend={"continuousBatching": False, "batchSize": PLACES, "maxBatchDelay": 100},
        limits=places(PLACES) | {"iteration_seconds": 3600},
        handler=FIXED,
    ),
    JOINING: Mode(frontend={"batchSize": HANDED_OVER}, limits=places(PLACES)),
}


def derive(archive: Path, mode: Mode, folder: Path) -> Path:
    """Write an archive to be served in a mode into an empty folder, and return it. Raises OSError, BadZipFile."""
    derived = folder / f"{MODEL}.mar"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(derived, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == CONFIG:
                content = _config(content, mode)
            elif name == MANIFEST and mode.handler:
                content = _manifest(content, mode.handler)
            target.writestr(name, content)
        if mode.handler:
            target.writestr(mode.handler.name, mode.handler.read_bytes())
            target.writestr(HANDLER, source.read(Path(HANDLER).name))  # for the other handler to build on
    return derived


def _config(content: bytes, mode: Mode) -> bytes:
    config: dict[str, Any] = yaml.safe_load(content)
    limits = {**config.get("handler", {}), **mode.limits}
    return yaml.safe_dump({**config, **ENDLESS, **mode.frontend, "handler": limits}).encode()


def _manifest(content: bytes, handler: Path) -> bytes:
    manifest: dict[str, Any] = json.loads(content)
    manifest["model"]["handler"] = handler.name
    return json.dumps(manifest).encode()
