"""The workers' metrics in Prometheus' text format, merged from the files that the workers write.

The supervisor reads the files, so metrics can be scraped while no worker runs. The counts of dead workers stay in the
sums. Their gauges are left out, but their files are kept: a worker that was reported dead by mistake, for example
while TorchServe did not respond, would go on writing to a deleted file.
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
BUILD: Final = "voicestyle_build_info"
WORKER_LABELS: Final = ("model", "bundle_version", "device", "dtype", "batching", "graphs")  # and the capacity
PROGRESS: Final = ("voicestyle_steps_total", "voicestyle_instant_faces_total")


def exposition(folder: Path, live_pids: Iterable[int]) -> bytes:
    """All metrics of the workers that wrote to `folder`, in the text format 0.0.4.

    Counters and histograms are sums over all workers that ever wrote there, gauges only over `live_pids`.
    Empty if the folder is empty or missing.
    """
    registry = CollectorRegistry()
    registry.register(_Merged(_files(folder, live_pids)))
    return generate_latest(registry)


def in_flight(folder: Path, live_pids: Iterable[int]) -> int:
    """Requests that the workers `live_pids` admitted and have not finished: live and waiting ones.

    Requests in TorchServe's own queue are not included.
    """
    return int(_sum(folder, live_pids, IN_FLIGHT))


def progress_made(folder: Path) -> float:
    """Optimisation steps, and faces made without any, of all workers that ever wrote to `folder`."""
    return _sum(folder, (), PROGRESS)


def running_workers(folder: Path, live_pids: Iterable[int]) -> list[dict[str, str | int]]:
    """What each of the workers `live_pids` computes with, by the labels of its `voicestyle_build_info`.

    A worker that still starts has none yet and is left out.
    """
    found: list[dict[str, str | int]] = []
    for pid in sorted(live_pids):
        metrics = _Merged([path for path in _files(folder, [pid]) if path.name.startswith("gauge_")]).collect()
        for sample in (sample for metric in metrics for sample in metric.samples if sample.name == BUILD):
            labels: dict[str, str | int] = {name: sample.labels[name] for name in WORKER_LABELS}
            found.append(labels | {"capacity": int(sample.labels["capacity"])})
    return found


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
    """The files to merge: `counter_PID.db` and `histogram_PID.db` of all, `gauge_MODE_PID.db` of running workers."""
    running = {str(pid) for pid in live_pids}
    return [
        path
        for path in sorted(folder.glob("*.db"))
        # A worker killed right after it opened a file leaves an empty one, which prometheus_client cannot read.
        if path.stat().st_size and (not path.name.startswith("gauge_") or path.stem.rpartition("_")[2] in running)
    ]
