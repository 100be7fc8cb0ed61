"""The folder that `voicestyle serve` and its workers share; its path is passed in an environment variable."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VARIABLE: Final = "VOICESTYLE_RUN"


@dataclass(frozen=True)
class RunFolder:
    """Files for all workers of one run.

    `path/metrics` holds prometheus_client's files. While the file `path/drain` exists, workers admit no requests. Once
    the file `path/graphs_failed` exists, they use no CUDA graphs; it contains the cause.
    """

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

    @property
    def graphs_failed(self) -> str | None:
        """Why a worker could not use CUDA graphs; None if none has failed."""
        try:
            return (self.path / "graphs_failed").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def report_graphs_failed(self, cause: str) -> None:
        """Let the workers that start from now on use no CUDA graphs."""
        (self.path / "graphs_failed").write_text(cause, encoding="utf-8")

    def environment(self) -> dict[str, str]:
        """The environment variables for the workers."""
        return {VARIABLE: str(self.path), "PROMETHEUS_MULTIPROC_DIR": str(self.metrics)}
