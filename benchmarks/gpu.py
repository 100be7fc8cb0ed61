"""What a GPU does: the step by batch size with and without graphs, and a whole pipeline.

    python -m benchmarks.gpu                                    on one GPU: about a quarter of an hour
    python -m benchmarks.gpu --device cpu --networks tiny ...   the same on a CPU, to try the measurement itself

Each measurement runs in a new process. Rows of the step are measured by `benchmarks.measure` as those of
`benchmarks.step`, and those of the pipeline by `benchmarks.pipeline_run`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import torch

from benchmarks.networks import NETWORKS
from benchmarks.results import RESULTS, MeasurementError, Row, append, machine, run_process, significant, spread
from benchmarks.step import Case, time
from benchmarks.tables import gpu_pipeline_table, gpu_step_table
from benchmarks.variants import BASELINE, VARIANTS
from voicestyle.precision import CHOICES
from voicestyle.serving import stop_on_signals
from voicestyle.serving.server import WORKER

FILE: Final = "gpu.jsonl"
BATCHES: Final = (1, 2, 4, 8, 16, 32)
# Without a batch of its own, "compiled" steps all faces at once on a GPU, and one after the other on a CPU.
COMPARED: Final = (
    BASELINE,
    "compiled, bfloat16, CUDA graphs",
    "compiled, bfloat16",
    "compiled, CUDA graphs",
    "compiled",
)


def missing(device: str) -> str | None:
    """Why this device cannot be measured, in one line; None if it can."""
    if device == "cpu" or torch.cuda.is_available():
        return None
    built = f"its CUDA is {torch.version.cuda}" if torch.version.cuda else "it is built without CUDA"
    return (
        f"a CUDA device is needed, but torch {torch.__version__} finds none ({built}); "
        "`--device cpu --networks tiny` tries the measurement itself"
    )


def pipeline_row(networks: str, found: Mapping[str, Any]) -> Row:
    """The row of a pipeline, from what `benchmarks.pipeline_run.run` returned."""
    joins, soak, cuda = found["join"], found["soak"], found["peak_cuda_mib"]
    return {
        "benchmark": "gpu pipeline",
        "networks": networks,
        "error": None,
        "machine": found["machine"],
        **found["computing"],
        "start_seconds": significant(found["start_seconds"]),
        "ms_to_first_step": spread(1000 * each["seconds"] for each in joins),
        "ms_of_preparation": spread(1000 * each["preparation"] for each in joins),
        "soak_seconds": significant(soak["seconds"]),
        "soak_faces": soak["faces"],
        "soak_steps": soak["steps"],
        "faces_per_second": significant(soak["faces"] / soak["seconds"]),
        "memory_growth_mib": round(soak["growth_mib"], 1),
        "peak_resident_mib": round(found["peak_resident_mib"]),
        "peak_cuda_mib": None if cuda is None else round(cuda),
    }


@click.command()
@click.option("--device", default="cuda:0", show_default=True)
@click.option("--networks", multiple=True, type=click.Choice(list(NETWORKS)), default=("full",), show_default=True)
@click.option(
    "--variant", "variants", multiple=True, type=click.Choice(COMPARED), default=COMPARED, help="By default all."
)
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1), default=BATCHES, show_default=True)
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1), help="Of each row of the step.")
@click.option("--warm-up", default=5, show_default=True, type=click.IntRange(0), help="Steps before the measured ones.")
@click.option("--steps", default=20, show_default=True, type=click.IntRange(1), help="Steps of each repeat.")
@click.option("--dtype", default="auto", show_default=True, type=click.Choice(CHOICES), help="Of the pipeline.")
@click.option("--capacity", type=click.IntRange(1), help="Of the pipeline; by default it is measured.")
@click.option("--joins", default=20, show_default=True, type=click.IntRange(1), help="Requests that join a full batch.")
@click.option("--soak", default=180.0, show_default=True, help="Seconds of requests that join and leave.")
@click.option("--check", is_flag=True, help="Only say whether the device can be measured.")
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path), help="Folder; rows are appended.")
def main(
    device: str,
    networks: Sequence[str],
    variants: Sequence[str],
    batches: Sequence[int],
    repeats: int,
    warm_up: int,
    steps: int,
    dtype: str,
    capacity: int | None,
    joins: int,
    soak: float,
    check: bool,
    results: Path,
) -> None:
    """Measure a GPU, write a row for each measurement, and print them. Exit code 2 without a GPU."""
    if reason := missing(device):
        click.echo(f"error: {reason}", err=True)
        raise SystemExit(2)
    if check:
        return
    cases = [
        Case(name, variant, batch, device)
        for name in networks
        for batch in batches
        for variant in variants
        if VARIANTS[variant].supports(NETWORKS[name], batch, device)
    ]
    pipelines: list[Row] = []
    try:
        with stop_on_signals():
            for repeat in range(repeats):
                for case in cases:
                    click.echo(f"{case.networks}, {case.variant}, batch {case.batch}: repeat {repeat + 1}", err=True)
                    time(case, warm_up, steps)
            for name in networks:
                click.echo(f"{name}: pipeline, {joins} requests that join, {soak:g} s of soak", err=True)
                pipelines.append(
                    measure_pipeline(name, device, dtype=dtype, capacity=capacity, joins=joins, soak_seconds=soak)
                )
    finally:  # an interrupted run keeps its measurements
        rows = [case.row() for case in cases]
        append(results / FILE, [*rows, *pipelines])
        click.echo(f"{gpu_step_table(rows)}\n\n{gpu_pipeline_table(pipelines)}")
    if any(row["error"] for row in (*rows, *pipelines)):
        raise SystemExit(1)


def measure_pipeline(networks: str, device: str, **arguments: object) -> Row:
    """The row of one pipeline, measured in a new process with the environment of the worker."""
    try:
        found = run_process("benchmarks.pipeline_run", "run", WORKER, networks=networks, device=device, **arguments)
    except MeasurementError as error:
        return {
            "benchmark": "gpu pipeline",
            "networks": networks,
            "error": str(error),
            "machine": machine(device),
            **arguments,
        }
    return pipeline_row(networks, found)


if __name__ == "__main__":
    main()
