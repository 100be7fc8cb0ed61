"""`voicestyle mapper`: train a bundle's mapper, which makes a face in one pass."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import click
from tqdm import tqdm

from voicestyle.bundle import Bundle, write_with_mapper
from voicestyle.cli.devices import usable_device
from voicestyle.errors import BundleError
from voicestyle.precision import CHOICES, choose_dtype
from voicestyle.training.mapper_options import MapperOptions
from voicestyle.training.mapper_pool import split_speakers
from voicestyle.training.mapper_training import MapperTraining, Validation
from voicestyle.training.mapper_voices import CropOptions, embed_recordings, find_recordings
from voicestyle.whole_files import write_whole

PATH = click.Path(path_type=Path)
DEFAULTS = MapperOptions()
CROPS = CropOptions()


@click.command()
@click.option("--bundle", "base", required=True, type=PATH, help="The bundle folder that gets a mapper.")
@click.option("--voices", required=True, multiple=True, type=PATH, help="Folder of recordings; may be repeated.")
@click.option("-o", "--output", required=True, type=PATH, help="The bundle folder to write.")
@click.option("--work", type=PATH, help="Folder of embeddings and checkpoint.  [default: OUTPUT-mapper]")
@click.option("--minutes", default=DEFAULTS.minutes, show_default=True, type=float, help="Most minutes of training.")
@click.option("--steps", default=DEFAULTS.steps, show_default=True, type=int, help="Most steps of training.")
@click.option("--batch", default=DEFAULTS.batch, show_default=True, type=int, help="Faces generated per step.")
@click.option("--learning-rate", default=DEFAULTS.learning_rate, show_default=True, type=float, help="At the start.")
@click.option(
    "--prior-weight", type=float, help="Of the distance from the first latent.  [default: the bundle's, or 0.5]"
)
@click.option(
    "--contrast-weight",
    default=DEFAULTS.contrast_weight,
    show_default=True,
    type=float,
    help="Of the contrast between voices.",
)
@click.option(
    "--temperature", default=DEFAULTS.temperature, show_default=True, type=float, help="Of the contrast between voices."
)
@click.option(
    "--drift-weight", default=DEFAULTS.drift_weight, show_default=True, type=float, help="Of what all faces share."
)
@click.option(
    "--hold/--no-hold", default=DEFAULTS.hold, show_default=True, help="Hold the directions that the prior names."
)
@click.option(
    "--virtual", default=DEFAULTS.virtual, show_default=True, type=float, help="Mixed voices for each recorded one."
)
@click.option("--crops", default=CROPS.crops, show_default=True, type=int, help="Embeddings of each recording.")
@click.option(
    "--recordings", default=CROPS.recordings, show_default=True, type=int, help="Most recordings of a speaker."
)
@click.option(
    "--patience",
    default=DEFAULTS.patience,
    show_default=True,
    type=int,
    help="Validations without progress that end the training.",
)
@click.option("--seed", default=DEFAULTS.seed, show_default=True, type=int, help="Random seed.")
@click.option(
    "--dtype", default="auto", show_default=True, type=click.Choice(CHOICES), help="Of generator and face encoder."
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 …")
def mapper(
    base: Path,
    voices: tuple[Path, ...],
    output: Path,
    work: Path | None,
    crops: int,
    recordings: int,
    dtype: str,
    device: str,
    **given: Any,
) -> None:
    """Train a mapper from voice to latent through a bundle's networks, and write the bundle with it.

    \b
    A folder of recordings has a table speakers.csv (file,speaker), or folders SPEAKER/ with audio files.
    An interrupted training continues when it is started again with the same options.

    Writes the bundle OUTPUT, and the figures of the training to OUTPUT-mapper.json.
    """
    options, crop_options = MapperOptions(**given), CropOptions(crops=crops, recordings=recordings)
    if output.exists() and not (output / "bundle.json").is_file():
        raise BundleError(f"{output} must be a bundle, which is replaced, or not exist; it is something else")
    used = usable_device(device)
    found = find_recordings(voices, crop_options.recordings)
    split_speakers([recording.speaker for recording in found])  # too few are an error now, not after the work
    bundle = Bundle.load(base, used, choose_dtype(dtype, used))
    work = work or output.with_name(f"{output.name}-mapper")
    work.mkdir(parents=True, exist_ok=True)

    def progress(numbers: range) -> Iterable[int]:
        return tqdm(numbers, "embedding voices", unit="recording", disable=None)

    def skip(path: Path, reason: str) -> None:
        click.echo(f"skipped {path}: {reason}", err=True)

    def report(validation: Validation) -> None:
        click.echo(str(validation))

    embedded = embed_recordings(
        bundle, found, crop_options, work / "voices.npz", device=used, progress=progress, skip=skip
    )
    start = perf_counter()
    training = MapperTraining(bundle, embedded, options, device=used)
    click.echo(
        f"{len(embedded)} embeddings; {training.speakers} speakers for training, {len(training.held_out)} held out"
    )
    trained = training.run(report, work / "checkpoint.pt")
    manifest = write_with_mapper(output, base, trained)
    figures = output.with_name(f"{output.name}-mapper.json")
    content = _figures(training) | {"crops": asdict(crop_options), "dtype": str(choose_dtype(dtype, used))}
    write_whole(figures, (json.dumps(content, indent=2) + "\n").encode())
    click.echo(f"kept {training.best}")
    click.echo(f"{output}: {manifest.name}@{manifest.version} with a mapper, after {perf_counter() - start:.0f} s")
    click.echo(f"figures: {figures}")


def _figures(training: MapperTraining) -> dict[str, Any]:
    """All options and validations; a loss that no step computed is null."""
    history = [asdict(validation) for validation in training.history]
    for row in history:
        row["training_loss"] = None if row["step"] == 0 else row["training_loss"]
    return {
        "options": asdict(training.options),
        "prior_weight": training.objective.prior_weight,
        "speakers": training.speakers,
        "held_out": training.held_out,
        "best_step": training.best.step,
        "validations": history,
    }
