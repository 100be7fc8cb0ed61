"""What an optimisation step costs, in speed, memory and quality.

    python -m benchmarks.step --quality 2         all variants: hours on two cores
    python -m benchmarks.step --quick             one repeat of each, in minutes

Each measurement runs in a new process. All variants are measured once, then all of them again, so that other load on
the machine affects all variants alike.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.networks import NETWORKS, gflop_per_step
from benchmarks.results import RESULTS, MeasurementError, Row, append, machine, run_process, significant, spread
from benchmarks.tables import step_table
from benchmarks.variants import REFERENCE, VARIANTS
from voicestyle.serving import stop_on_signals


@dataclass
class Case:
    """A combination to measure, and its measurements so far."""

    networks: str
    variant: str
    batch: int
    device: str
    times: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    quality: Row | None = None
    error: str | None = None

    def measure(self, function: str, **arguments: object) -> dict[str, Any]:
        """Call a function of `benchmarks.measure` in a new process. Raises MeasurementError."""
        names = {"networks": self.networks, "variant": self.variant, "device": self.device}
        environment = VARIANTS[self.variant].environment
        return run_process("benchmarks.measure", function, environment, **names, **arguments)

    def row(self) -> Row:
        """The row of results. Of the measurements' machines it has the one with the highest load average."""
        row: dict[str, Any] = {
            "benchmark": "step",
            "networks": self.networks,
            "variant": self.variant,
            "dtype": VARIANTS[self.variant].dtype,
            "batch": self.batch,
            "error": self.error,
        }
        if not self.times:
            return row | {"machine": machine(self.device)}
        schedule, gflop = NETWORKS[self.networks].steps, gflop_per_step(self.networks)
        ms = [1000 * each["seconds"] for each in self.times]
        ms_per_face = median(ms) / self.batch
        gflops = 1000 * gflop / ms_per_face
        matmul = {
            dtype: median(each["matmul_gflops"][dtype] for each in self.times)
            for dtype in self.times[0]["matmul_gflops"]
        }
        cuda = [each["peak_cuda_mib"] for each in self.times if each["peak_cuda_mib"] is not None]
        return row | {
            "dtype": self.times[0]["dtype"],
            "machine": max((each["machine"] for each in self.times), key=lambda each: each["load_average"]),
            "repeats": len(self.times),
            "steps_per_repeat": self.times[0]["steps"],
            "ms_per_step": spread(ms),
            "ms_per_step_and_face": spread(each / self.batch for each in ms),
            "schedule_steps": schedule,
            "faces_per_minute": significant(60_000 / (ms_per_face * schedule)),
            "peak_resident_mib": round(max(each["peak_resident_mib"] for each in self.times)),
            "peak_cuda_mib": round(max(cuda)) if cuda else None,
            "gflop_per_step_and_face": significant(gflop),
            "gflops": significant(gflops),
            "matmul_gflops": {dtype: significant(rate) for dtype, rate in matmul.items()},
            "share_of_matmul": {dtype: significant(gflops / rate, 3) for dtype, rate in matmul.items()},
            "quality": self.quality,
        }


@click.command()
@click.option("--networks", multiple=True, type=click.Choice(list(NETWORKS)), default=("full", "demo"))
@click.option("--variant", "variants", multiple=True, type=click.Choice(list(VARIANTS)), help="By default all.")
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1), default=(1, 4))
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1))
@click.option("--warm-up", default=3, show_default=True, type=click.IntRange(0), help="Steps before the measured ones.")
@click.option("--steps", default=3, show_default=True, type=click.IntRange(1), help="Steps of each repeat.")
@click.option("--quality", "faces", default=0, show_default=True, help="Faces of the whole schedule per variant.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path), help="Folder; rows are appended.")
@click.option("--quick", is_flag=True, help="One repeat with a batch of 1; rows are printed, not written.")
def main(
    networks: Sequence[str],
    variants: Sequence[str],
    batches: Sequence[int],
    repeats: int,
    warm_up: int,
    steps: int,
    faces: int,
    device: str,
    results: Path,
    quick: bool,
) -> None:
    """Measure the step, write a row for each combination of networks, batch and variant, and print them."""
    cases = [
        Case(name, variant, batch, device)
        for name in networks
        for batch in ((1,) if quick else batches)
        for variant in variants or VARIANTS
        if VARIANTS[variant].supports(NETWORKS[name], batch, device)
    ]
    try:
        with stop_on_signals():
            for repeat in range(1 if quick else repeats):
                for case in cases:
                    click.echo(f"{case.networks}, {case.variant}, batch {case.batch}: repeat {repeat + 1}", err=True)
                    time(case, warm_up, steps)
            add_quality(cases, faces)
    finally:  # an interrupted run keeps its measurements
        rows = [case.row() for case in cases]
        if not quick:
            append(results / "step.jsonl", rows)
        click.echo("\n\n".join(step_table(rows, name) for name in networks))


def time(case: Case, warm_up: int, steps: int) -> None:
    """Measure a case once more, unless it failed before."""
    if case.error is None:
        try:
            case.times.append(case.measure("time", batch=case.batch, warm_up=warm_up, steps=steps))
        except MeasurementError as error:
            case.error = str(error)


def add_quality(cases: Sequence[Case], count: int) -> None:
    """Add the quality of faces 0 … count − 1 to each case that has not failed."""

    @cache
    def faces_of(networks: str, variant: str) -> tuple[list[float], list[NDArray[np.uint8]]]:
        click.echo(f"{networks}, {variant}: quality of {count} faces", err=True)
        case = Case(networks, variant, 1, cases[0].device)
        similarities: list[float] = []
        images: list[NDArray[np.uint8]] = []
        with tempfile.NamedTemporaryFile(suffix=".npy") as file:
            for face in range(count):
                similarities.append(case.measure("quality", face=face, image=file.name)["similarity"])
                images.append(np.load(file.name))
        return similarities, images

    for case in cases if count else ():
        if case.error is None:
            try:
                reference, reference_images = faces_of(case.networks, REFERENCE)
                similarities, images = faces_of(case.networks, case.variant)
            except MeasurementError as error:
                case.error = f"quality: {error}"
                continue
            worst = min(psnr(*pair) for pair in zip(images, reference_images, strict=True))
            differences = [a - b for a, b in zip(similarities, reference, strict=True)]
            case.quality = {
                "faces": count,
                "similarity": round(fmean(similarities), 5),
                "reference_similarity": round(fmean(reference), 5),
                "largest_difference": round(max(differences, key=abs), 5),
                "worst_psnr_db": None if worst == float("inf") else significant(worst),
            }


def psnr(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 images; infinite for equal ones."""
    error = np.square(image.astype(np.float64) - reference).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


if __name__ == "__main__":
    main()
