"""The workers' metrics as Prometheus reads them, put together from the files that the workers write.

The files are read by whoever serves the metrics, so they can be scraped while no worker lives. What a dead worker
counted stays in the sums. Its gauges are passed over instead of deleted: a worker that was taken for dead by
mistake, say while TorchServe did not answer, would go on writing to a deleted file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4  # of what `exposition` returns
IN_FLIGHT: Final = ("voicestyle_live_requests", "voicestyle_waiting_requests")
STEPS: Final = "voicestyle_steps_total"


def exposition(folder: Path, live_pids: Iterable[int]) -> bytes:
    """All metrics of the workers that wrote to `folder`, in the text format 0.0.4.

    Counters and histograms are sums over all workers that ever wrote there, gauges only over those of `live_pids`.
    Empty if the folder is, or is missing.
    """
    registry = CollectorRegistry()
    registry.register(_Merged(_files(folder, live_pids)))
    return generate_latest(registry)


def in_flight(folder: Path, live_pids: Iterable[int]) -> int:
    """Requests that the workers of `live_pids` took in and did not answer yet: live and waiting ones.

    Those that TorchServe still queues are not among them, and a worker that is not in `live_pids` has none.
    """
    return int(_sum(folder, live_pids, IN_FLIGHT))


def steps_taken(folder: Path) -> float:
    """Optimisation steps of all workers that ever wrote to `folder`."""
    return _sum(folder, (), (STEPS,))


def _sum(folder: Path, live_pids: Iterable[int], names: Sequence[str]) -> float:
    samples = (sample for metric in _Merged(_files(folder, live_pids)).collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name in names)


class _Merged(Collector):
    """The metrics in prometheus_client's files, by name."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def collect(self) -> list[Metric]:
        merged: Iterable[Metric] = MultiProcessCollector.merge([str(path) for path in self._files])
        return sorted(merged, key=lambda metric: metric.name)


def _files(folder: Path, live_pids: Iterable[int]) -> list[Path]:
    """The files to be merged: `counter_PID.db`, `histogram_PID.db`, and `gauge_MODE_PID.db` of the living."""
    living = {str(pid) for pid in live_pids}
    return [
        path
        for path in sorted(folder.glob("*.db"))
        # A worker that is killed right after it opened a file leaves it empty, which the reader does not expect.
        if path.stat().st_size and (not path.name.startswith("gauge_") or path.stem.rpartition("_")[2] in living)
    ]
