"""What `voicestyle serve` and its workers share while it runs: a folder, told through the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VARIABLE: Final = "VOICESTYLE_RUN"


@dataclass(frozen=True)
class RunFolder:
    """`path/metrics` for prometheus_client's files, and the flag `path/drain`: the workers take nobody new in."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make the folder, which must not exist: the metrics of an earlier run would be counted again."""
        (path / "metrics").mkdir(parents=True)
        return cls(path)

    @classmethod
    def from_environment(cls) -> RunFolder | None:
        """The folder that this process was told of; None where nobody supervises it."""
        path = os.environ.get(VARIABLE)
        return None if path is None else cls(Path(path))

    @property
    def metrics(self) -> Path:
        """Where the workers keep their metrics."""
        return self.path / "metrics"

    @property
    def draining(self) -> bool:
        """Whether the drain flag is set."""
        return (self.path / "drain").exists()

    def begin_drain(self) -> None:
        """Set the drain flag: from the next turn on newcomers get 503 `draining`."""
        (self.path / "drain").touch()

    def environment(self) -> dict[str, str]:
        """What the workers are told."""
        return {VARIABLE: str(self.path), "PROMETHEUS_MULTIPROC_DIR": str(self.metrics)}
