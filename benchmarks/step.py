"""What an optimisation step costs: every variant, subject and batch, in speed, memory and quality.

    python -m benchmarks.step --quality 2     all of it: hours on two cores
    python -m benchmarks.step --quick         a look, in minutes

Each measurement runs in a fresh process, and the variants take turns: all of them once, then all of them again. So
whatever else the machine does falls on all alike.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks import quality
from benchmarks.machine import Machine
from benchmarks.processes import MeasurementError, measure
from benchmarks.rows import RESULTS, Row, Spread, append, significant
from benchmarks.subjects import SUBJECTS, gflop_per_step
from benchmarks.variants import REFERENCE, VARIANTS, computation
from voicestyle.serving import stop_on_signals


@dataclass
class Case:
    """One row in the making: a subject, a variant and a batch, and what was measured of them so far."""

    subject: str
    variant: str
    batch: int
    found: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    quality: dict[str, Any] | None = None
    error: str | None = None

    def __str__(self) -> str:
        return f"{self.subject}, {self.variant}, batch {self.batch}"

    def measure(self, options: Sequence[object], warm_up: int, steps: int) -> None:
        """Once more, unless it failed before."""
        if self.error is not None:
            return
        arguments = [*options, "time", "--subject", self.subject, "--variant", self.variant]
        arguments += ["--batch", self.batch, "--warm-up", warm_up, "--steps", steps]
        try:
            self.found.append(measure("benchmarks.measure", arguments, VARIANTS[self.variant].environment))
        except MeasurementError as error:
            self.error = str(error)

    def row(self, steps: int, device: str) -> Row:
        """All that is known about it; of the machine, the moment at which most others used it."""
        row: dict[str, Any] = {
            "benchmark": "step",
            "subject": self.subject,
            "variant": self.variant,
            "dtype": VARIANTS[self.variant].dtype,
            "batch": self.batch,
            "error": self.error,
        }
        if not self.found:
            return row | {"machine": asdict(Machine.here(torch.device(device)))}
        schedule = SUBJECTS[self.subject].steps
        step = Spread.of(each["seconds"] for each in self.found).scaled(1000)
        face_step = step.scaled(1 / self.batch)
        gflop = gflop_per_step(self.subject)
        gflops = gflop / face_step.median * 1000
        rates = {
            dtype: Spread.of(each["matmul_gflops"][dtype] for each in self.found).median
            for dtype in self.found[0]["matmul_gflops"]
        }
        cuda = [each["peak_cuda_mib"] for each in self.found if each["peak_cuda_mib"] is not None]
        return row | {
            "machine": max((each["machine"] for each in self.found), key=lambda machine: machine["load_average"]),
            "repeats": len(self.found),
            "steps_per_repeat": steps,
            "ms_per_step": step.as_row(),
            "ms_per_step_and_face": face_step.as_row(),
            "schedule_steps": schedule,
            "faces_per_minute": significant(60_000 / (face_step.median * schedule)),
            "peak_resident_mib": round(max(each["peak_resident_mib"] for each in self.found)),
            "peak_cuda_mib": round(max(cuda)) if cuda else None,
            "gflop_per_step_and_face": significant(gflop),
            "gflops": significant(gflops),
            "matmul_gflops": {dtype: significant(rate) for dtype, rate in rates.items()},
            "share_of_matmul": {dtype: significant(gflops / rate, 3) for dtype, rate in rates.items()},
            "quality": self.quality,
        }


def cases(subjects: Sequence[str], variants: Sequence[str], batches: Sequence[int], device: torch.device) -> list[Case]:
    """Everything there is to measure, in the order in which it takes turns."""
    return [
        Case(subject, variant, batch)
        for subject in subjects
        for batch in batches
        for variant in variants
        if VARIANTS[variant].takes(SUBJECTS[subject], batch, device)
    ]


def judge(found: Sequence[Case], options: Sequence[object], faces: int) -> None:
    """Give every variant that works its quality, from the same faces of each subject.

    Variants that differ in their environment alone compute the same, so their faces are made once.
    """
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, list[quality.Made]] = {}

        def faces_of(subject: str, variant: str) -> list[quality.Made]:
            computed = f"{subject} {computation(VARIANTS[variant])}"
            if computed not in made:
                made[computed] = make_faces(subject, variant)
            return made[computed]

        def make_faces(subject: str, variant: str) -> list[quality.Made]:
            click.echo(f"{subject}, {variant}: quality of {faces} faces", err=True)
            return [quality.make(subject, variant, face, options, Path(folder)) for face in range(faces)]

        for subject in {case.subject: None for case in found}:
            reference = faces_of(subject, REFERENCE)
            for variant in {case.variant: None for case in found if case.subject == subject and not case.error}:
                of_variant = [case for case in found if (case.subject, case.variant) == (subject, variant)]
                try:
                    theirs = faces_of(subject, variant)
                except MeasurementError as error:
                    for case in of_variant:
                        case.error = f"quality: {error}"
                    continue
                for case in of_variant:
                    case.quality = quality.compare(theirs, reference)


@click.command()
@click.option("--subject", "subjects", multiple=True, type=click.Choice(list(SUBJECTS)), default=("full", "demo"))
@click.option("--variant", "variants", multiple=True, type=click.Choice(list(VARIANTS)), help="By default all.")
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1), default=(1, 4))
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1))
@click.option("--warm-up", default=3, show_default=True, type=click.IntRange(0), help="Steps before the clock starts.")
@click.option("--steps", default=3, show_default=True, type=click.IntRange(1), help="Steps a repeat.")
@click.option("--quality", "faces", default=0, show_default=True, help="Faces of the whole schedule per variant.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", type=int, help="By default one for each core.")
@click.option("--output", default=RESULTS / "step.jsonl", type=click.Path(path_type=Path), help="Rows are added to it.")
@click.option("--quick", is_flag=True, help="One repeat, batch 1, and the rows are only printed.")
def main(
    subjects: Sequence[str],
    variants: Sequence[str],
    batches: Sequence[int],
    repeats: int,
    warm_up: int,
    steps: int,
    faces: int,
    device: str,
    threads: int | None,
    output: Path,
    quick: bool,
) -> None:
    """Measure the step and write a row for each subject, variant and batch."""
    if quick:
        repeats, batches = 1, (1,)
    options = ["--device", device, *(["--threads", threads] if threads else [])]
    found = cases(subjects, variants or tuple(VARIANTS), batches, torch.device(device))
    try:
        with stop_on_signals():
            for repeat in range(repeats):
                for case in found:
                    click.echo(f"{case}: repeat {repeat + 1} of {repeats}", err=True)
                    case.measure(options, warm_up, steps)
            if faces:
                judge(found, options, faces)
    finally:  # an interrupted run keeps what it has
        for case in found:
            row = case.row(steps, device)
            click.echo(line(row))
            if not quick:
                append(output, row)


def line(row: Row) -> str:
    """A row in short."""
    name = f"{row['subject']}, {row['variant']}, batch {row['batch']}"
    if "ms_per_step" not in row:
        return f"{name}: {row['error'] or 'not measured'}"
    speed, share = row["ms_per_step"], row["share_of_matmul"].get(row["dtype"], 0)
    return (
        f"{name}: {speed['median']:g} ms a step ({speed['min']:g} to {speed['max']:g}), "
        f"{row['peak_resident_mib']} MiB, {share:.0%} of the rate of a matrix product in {row['dtype']}"
    )


if __name__ == "__main__":
    main()
