"""The preset `instant` against the bundle's default, over HTTP: seconds from a voice to its PNG, and faces a minute.

    python -m benchmarks.instant

One client sends a voice, waits for its face, and sends the next. In each run both presets get the same voices and seeds
on the same TorchServe, which has made a face of each before.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import click

from benchmarks.networks import VOICES
from benchmarks.results import ARCHIVE, RESULTS, append, machine, significant, spread
from benchmarks.serving import CONTINUOUS, Request, Result, clients_row, measure, serve, throughput
from benchmarks.tables import instant_table
from voicestyle.manifest import MANIFEST, Manifest
from voicestyle.options import Options
from voicestyle.presets import DEFAULT, INSTANT
from voicestyle.serving import stop_on_signals

PRESETS: Final = (DEFAULT, INSTANT)


def preset_row(
    preset: str, runs: Sequence[Sequence[Result]], default_runs: Sequence[Sequence[Result]]
) -> dict[str, Any]:
    """Seconds of each response, faces a minute and their multiple of the default's in each run, and similarity."""
    row = clients_row(1, runs) | {"benchmark": "instant", "preset": preset}
    faces = [each for run in runs for each in run if each.error is None]
    pairs = [(throughput(run), throughput(default)) for run, default in zip(runs, default_runs, strict=True)]
    if faces and all(default for _, default in pairs):
        row["times_default"] = spread(own / default for own, default in pairs)
        row["similarity"] = significant(fmean(each.similarity for each in faces))
    return row


@click.command()
@click.option("--archive", default=ARCHIVE, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--faces", default=6, show_default=True, type=click.IntRange(1), help="Of each preset in each run.")
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1))
@click.option("--size", default=256, show_default=True, help="Pixels a side.")
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path), help="Folder; rows are appended.")
def main(archive: Path, faces: int, runs: int, size: int, results: Path) -> None:
    """Measure both presets in turn, write a row for each, and print them."""
    with zipfile.ZipFile(archive) as opened:
        manifest = Manifest.parse(opened.read(f"bundle/{MANIFEST}"), f"{archive}: {MANIFEST}")
    if not manifest.mapper:
        raise click.ClickException(f"{archive} must hold a bundle with a mapper, got {manifest.name} without one")
    here = machine()
    measured: dict[str, list[list[Result]]] = {preset: [] for preset in PRESETS}
    with stop_on_signals(), serve(archive, CONTINUOUS) as server:
        for run in range(runs):
            sent = [Request(0, VOICES[i % len(VOICES)], run * faces + i) for i in range(faces)]
            for preset, each in measured.items():
                each.append(measure(server, None, size, sent, clients=1, preset=preset))
    rows = [
        preset_row(preset, each, measured[DEFAULT])
        | {"steps": manifest.resolve(Options(preset=preset)).steps, "size": size, "machine": here}
        for preset, each in measured.items()
    ]
    append(results / "instant.jsonl", rows)
    click.echo(instant_table(rows))


if __name__ == "__main__":
    main()
