"""`voicestyle generate`: voices to faces on this machine, all of them in one batch."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import click
from tqdm import tqdm

from voicestyle.cli.devices import usable_device
from voicestyle.cli.files import format_of, write_whole
from voicestyle.errors import InputError
from voicestyle.face import Face
from voicestyle.options import MAX_SEED, Options
from voicestyle.pipeline import Pipeline
from voicestyle.precision import AUTO, CHOICES, choose_dtype
from voicestyle.presets import PRESETS

STEPS_PER_UPDATE = 2
DEFAULT_OUTPUT = Path("face.png")


@click.command()
@click.argument("voices", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A file for one voice (.png, .jpg, .webp), or a folder, which gets STEM.png for each.  "
    "[default: face.png, or faces/]",
)
@click.option(
    "--bundle",
    default=Path("bundles/demo"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder that `voicestyle bundle` wrote.",
)
@click.option("--steps", type=click.IntRange(1), help="Optimisation steps.  [default: the bundle's]")
@click.option(
    "--preset",
    type=click.Choice(tuple(PRESETS)),
    help="The optimisation's schedule: as published, or a quarter of its steps.  [default: default]",
)
@click.option("--seed", type=click.IntRange(0, MAX_SEED), help="Draws the noise.  [default: the bundle's]")
@click.option("--size", type=int, help="Pixels a side, such as 256 or 1024.  [default: the bundle's]")
@click.option("--batch", default=4, show_default=True, type=click.IntRange(1), help="Most voices at work at once.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 …")
@click.option(
    "--dtype",
    default=AUTO,
    show_default=True,
    type=click.Choice(CHOICES),
    help="Of the face's networks; auto is bfloat16 where the device multiplies it natively.",
)
@click.option("--report", is_flag=True, help="Also write STEM.json: similarity trace, prototypes, seed, timings.")
def generate(
    voices: tuple[Path, ...],
    output: Path | None,
    bundle: Path,
    steps: int | None,
    preset: str | None,
    seed: int | None,
    size: int | None,
    batch: int,
    device: str,
    dtype: str,
    report: bool,
) -> None:
    """Make the face that each of VOICES suggests.

    VOICES are audio files in any format that libsndfile reads (wav, flac, ogg, mp3 …), of any rate and channel
    count. They share one running batch, and a voice's face does not depend on the others. A voice that cannot be
    used is named on stderr, the others are made all the same, and the exit code is 1.
    """
    targets = _targets(voices, output)
    form = format_of(next(iter(targets.values())))
    options = Options(steps=steps, seed=seed, size=size, format=form, preset=preset)
    where = usable_device(device)
    pipeline = Pipeline.load(bundle, device=where, capacity=min(batch, len(voices)), dtype=choose_dtype(dtype, where))
    planned = pipeline.manifest.resolve(options).steps
    waiting, failed = list(voices), 0
    with tqdm(total=planned * len(voices), unit="step", smoothing=0.1) as bar:
        while waiting or pipeline.live:
            while waiting and pipeline.live < pipeline.capacity:
                voice = waiting.pop(0)
                try:
                    pipeline.submit(str(voice), voice, options)
                except InputError as error:
                    failed += 1
                    bar.total -= planned
                    bar.write(f"{voice}: {error}", file=sys.stderr)
            _advance(pipeline, bar, targets, report)
    if failed:
        raise SystemExit(1)


def _targets(voices: tuple[Path, ...], output: Path | None) -> dict[str, Path]:
    """Where each voice's face goes. Raises click.BadParameter where two would go to one place."""
    if output is None:
        output = DEFAULT_OUTPUT if len(voices) == 1 else Path("faces")
    if output.suffix and not output.is_dir():
        format_of(output)
        if len(voices) > 1:
            raise click.BadParameter(f"{len(voices)} voices need a folder, got the file {output}", param_hint="-o")
        return {str(voice): output for voice in voices}
    targets = {str(voice): output / f"{voice.stem}.png" for voice in voices}
    if len(set(targets.values())) < len(voices):
        raise click.BadParameter("voices must have different names, for each face is named after its voice's file")
    return targets


def _advance(pipeline: Pipeline, bar: "tqdm[NoReturn]", targets: dict[str, Path], report: bool) -> None:
    before = {key: progress.step for key, progress in pipeline.progress().items()}
    pipeline.step(STEPS_PER_UPDATE)
    for key, progress in pipeline.progress().items():
        bar.update(progress.step - before[key])
        bar.set_postfix_str(f"similarity {progress.similarity:.3f}")
        if progress.finished:
            _write(pipeline.finish(key), Path(key), targets[key], bar, report)


def _write(face: Face, voice: Path, target: Path, bar: "tqdm[NoReturn]", report: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, face.image)
    if report:
        values = asdict(face)
        del values["image"]
        target.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    bar.write(f"{voice} -> {target}  similarity {face.first_similarity:.3f} -> {face.similarity:.3f}")
