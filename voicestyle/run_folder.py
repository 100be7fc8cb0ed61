"""The folder that `voicestyle serve` and its workers share; its path is passed in an environment variable."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VARIABLE: Final = "VOICESTYLE_RUN"


@dataclass(frozen=True)
class RunFolder:
    """`path/metrics` holds prometheus_client's files; while the file `path/drain` exists, workers admit no requests."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make the folder. Raises FileExistsError if it exists: the metrics of an earlier run would count again."""
        (path / "metrics").mkdir(parents=True)
        return cls(path)

    @classmethod
    def from_environment(cls) -> RunFolder | None:
        """The folder named by this process's environment; None for a worker that `voicestyle serve` did not start."""
        path = os.environ.get(VARIABLE)
        return None if path is None else cls(Path(path))

    @property
    def metrics(self) -> Path:
        """The folder of the workers' metrics."""
        return self.path / "metrics"

    @property
    def draining(self) -> bool:
        """Whether the drain flag is set."""
        return (self.path / "drain").exists()

    def begin_drain(self) -> None:
        """Set the drain flag: from the handler's next iteration on, new requests get 503 `draining`."""
        (self.path / "drain").touch()

    def environment(self) -> dict[str, str]:
        """The environment variables for the workers."""
        return {VARIABLE: str(self.path), "PROMETHEUS_MULTIPROC_DIR": str(self.metrics)}
