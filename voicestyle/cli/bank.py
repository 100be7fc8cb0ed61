"""`voicestyle invert` and `voicestyle bank`: photographs to latents, as one file or as a job that can be continued."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

from voicestyle.bank_builder import rewrite_report
from voicestyle.cli.bank_flags import FILE, generator_flags, inversion_flags, job_flags, replacement_flags, run_build
from voicestyle.inversion.inverter import GPU_BATCH

BATCHES = 4  # of photographs in a shard of `voicestyle invert`


@click.command()
@click.argument("photographs", nargs=-1, required=True, type=FILE)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The .pt file of latents; NAME.html beside it is the report.",
)
@generator_flags
@inversion_flags
def invert(photographs: tuple[Path, ...], output: Path, **values: Any) -> None:
    """Find the latents whose images are nearest to PHOTOGRAPHS, files or folders.

    Writes {"latents": float32 [M, 512], "videos": [M paths]} and a report with each photograph beside its inversion.
    `voicestyle bank build` does the same as a job that can be interrupted.
    """
    if output.suffix != ".pt":
        raise click.BadParameter(f"latents are written as .pt, got {output}", param_hint="-o")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".invert-", dir=output.parent) as folder:
        # Nothing is continued here, so shards are only large enough for the batch to stay full.
        shard_size = BATCHES * (values["batch"] or GPU_BATCH)
        built = run_build(photographs, Path(folder) / "bank", shard_size=shard_size, **values)
        shutil.move(built.latents, output)
        shutil.move(built.report, output.with_suffix(".html"))
    click.echo(built.summary(output, output.with_suffix(".html")))


@click.group()
def bank() -> None:
    """Build a latent bank: photographs are judged, aligned and inverted."""


@bank.command()
@click.argument("photographs", nargs=-1, required=True, type=FILE)
@click.option("-o", "--output", required=True, type=FILE, help="The folder of the build; a later run continues it.")
@generator_flags
@click.option("--csv", type=FILE, help="training.csv: one latent for each of its videos, by frontal replacement.")
@replacement_flags
@inversion_flags
@job_flags
def build(photographs: tuple[Path, ...], output: Path, **values: Any) -> None:
    """Build a bank from PHOTOGRAPHS, files or folders: latents.pt, bank.json and report.html.

    A run that was interrupted continues where it stopped. The bank has the same bytes whatever the shards, workers or
    interruptions.
    """
    click.echo(str(run_build(photographs, output, **values)))


@bank.command()
@click.argument("folder", type=FILE)
def report(folder: Path) -> None:
    """Write bank and report of the finished build in FOLDER again, from its shards."""
    click.echo(str(rewrite_report(folder)))
