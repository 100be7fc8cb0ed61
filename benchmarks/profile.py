"""Where a step's time goes: the operations that take most of it themselves, as torch's profiler sees them.

python -m benchmarks.profile --subject full --variant eager
"""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import Machine
from benchmarks.rows import RESULTS, append, significant
from benchmarks.subjects import SUBJECTS
from benchmarks.variants import VARIANTS


@click.command()
@click.option("--subject", default="full", show_default=True, type=click.Choice(list(SUBJECTS)))
@click.option("--variant", required=True, type=click.Choice(list(VARIANTS)))
@click.option("--batch", default=1, show_default=True)
@click.option("--warm-up", default=3, show_default=True)
@click.option("--steps", default=1, show_default=True)
@click.option("--top", default=15, show_default=True, help="Operations to name; the others are summed up.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--output", default=RESULTS / "profile.jsonl", type=click.Path(path_type=Path), help="The row is added.")
def main(subject: str, variant: str, batch: int, warm_up: int, steps: int, top: int, device: str, output: Path) -> None:
    """Profile a step of one variant and write a row."""
    environment = os.environ | VARIANTS[variant].environment
    if environment != os.environ:  # it has to be there when the process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.profile", *sys.argv[1:]], environment)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    where = torch.device(device)
    machine = Machine.here(where)
    run = VARIANTS[variant].start(SUBJECTS[subject], range(batch), where)
    for _ in range(warm_up):
        run.step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if where.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            run.step()
    found = operations(profiler, where, steps)
    row = {
        "benchmark": "profile",
        "subject": subject,
        "variant": variant,
        "batch": batch,
        "machine": asdict(machine),
        "ms_per_step": significant(sum(each["ms"] for each in found)),
        "operations": found[:top],
        "others_ms": significant(sum(each["ms"] for each in found[top:])),
    }
    append(output, row)
    for each in found[:top]:
        click.echo(f"{each['ms']:10.2f} ms {each['calls']:6g} x {each['name']}")


def operations(profiler: profile, device: torch.device, steps: int) -> list[dict[str, Any]]:
    """Name, calls and milliseconds of each operation without those that it calls, per step, costliest first."""
    which = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    found: list[dict[str, Any]] = [
        {
            "name": each.key,
            "calls": each.count / steps,
            "ms": significant(getattr(each, which) / 1000 / steps),
        }
        for each in profiler.key_averages()
    ]
    return sorted(found, key=lambda each: -each["ms"])


if __name__ == "__main__":
    main()
