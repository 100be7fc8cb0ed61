"""What the supervisor and the workers share while one TorchServe runs: a folder, told through the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """`path/metrics` for prometheus_client's files, and the flag `path/drain`: the workers take nobody new in."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make the folder, which must not exist: the metrics of an earlier run would be counted again."""
        (path / "metrics").mkdir(parents=True)
        return cls(path)

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
        return {"VOICESTYLE_RUN": str(self.path), "PROMETHEUS_MULTIPROC_DIR": str(self.metrics)}
