"""`voicestyle generate`: voices to faces on this machine, all of them in one batch."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click
from tqdm import tqdm

from voicestyle.cli.devices import prepared_device
from voicestyle.cli.files import format_of
from voicestyle.cli.options import option_flags
from voicestyle.errors import InputError
from voicestyle.face import Face
from voicestyle.offline import generate_faces
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline, Prepared, Progress
from voicestyle.precision import AUTO, CHOICES, choose_dtype
from voicestyle.whole_files import write_whole

DEFAULT_OUTPUT = Path("face.png")


@click.command()
@click.argument("voices", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A file for one voice (.png, .jpg, .webp), or a folder, where each voice gets STEM.png.  "
    "[default: face.png, or faces/ for several voices]",
)
@click.option(
    "--bundle",
    default=Path("bundles/demo"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="A folder that `voicestyle bundle` wrote.",
)
@option_flags(local=True)
@click.option("--batch", default=4, show_default=True, type=click.IntRange(1), help="Slots in the batch.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 …")
@click.option(
    "--dtype",
    default=AUTO,
    show_default=True,
    type=click.Choice(CHOICES),
    help="Of generator and face encoder; auto measures and is bfloat16 where that is clearly faster.",
)
@click.option("--report", is_flag=True, help="Also write STEM.json: similarity at each step, prototypes, timings.")
def generate(
    voices: tuple[Path, ...],
    output: Path | None,
    bundle: Path,
    batch: int,
    device: str,
    dtype: str,
    report: bool,
    **given: Any,
) -> None:
    """Make the face that each of VOICES suggests.

    VOICES are audio files in any format that libsndfile reads (wav, flac, ogg, mp3 …), with any sample rate and number
    of channels. They share one batch, and a voice's face does not depend on the others. If a voice cannot be used, an
    error names it, the other faces are made, and the exit code is 1.
    """
    targets = _targets(voices, output)
    options = Options(format=format_of(next(iter(targets.values()))), **given)
    used = prepared_device(device)
    pipeline = Pipeline.load(bundle, device=used, capacity=min(batch, len(voices)), dtype=choose_dtype(dtype, used))
    steps = pipeline.manifest.resolve(options).steps
    unit, each = ("step", steps) if steps else ("face", 1)
    failed: list[Path] = []

    def prepare() -> Iterator[tuple[str, Prepared]]:
        for voice in voices:
            try:
                yield str(voice), pipeline.prepare(voice, options)
            except InputError as error:
                failed.append(voice)
                bar.total -= each
                bar.write(f"{voice}: {error}", file=sys.stderr)

    # Nothing of the bar remains: an error is one line, and each face has a line of its own.
    with tqdm(total=each * len(voices), unit=unit, smoothing=0.1, leave=False) as bar:
        show = _ProgressBar(bar).show
        for key, face in generate_faces(pipeline, prepare(), show):
            _write(face, Path(key), targets[key], bar, report)
            if not steps:
                bar.update()
    if failed:
        raise SystemExit(1)


def _targets(voices: tuple[Path, ...], output: Path | None) -> dict[str, Path]:
    """The file of each voice's face. Raises click.BadParameter if two voices would get the same one."""
    if output is None:
        output = DEFAULT_OUTPUT if len(voices) == 1 else Path("faces")
    if output.suffix and not output.is_dir():
        format_of(output)
        if len(voices) > 1:
            raise click.BadParameter(f"{len(voices)} voices need a folder, got the file {output}", param_hint="-o")
        return {str(voice): output for voice in voices}
    targets = {str(voice): output / f"{voice.stem}.png" for voice in voices}
    if len(set(targets.values())) < len(voices):
        raise click.BadParameter(
            "voices must have different file names, because each face file is named after its voice file"
        )
    return targets


class _ProgressBar:
    """Shows the steps of all voices in one bar."""

    def __init__(self, bar: "tqdm[NoReturn]") -> None:
        self._bar = bar
        self._steps: dict[str, int] = {}

    def show(self, progress: dict[str, Progress]) -> None:
        self._steps |= {key: each.step for key, each in progress.items()}
        similarity = max(each.similarity for each in progress.values())
        self._bar.set_postfix_str(f"similarity {similarity:.3f}", refresh=False)
        self._bar.update(sum(self._steps.values()) - self._bar.n)


def _write(face: Face, voice: Path, target: Path, bar: "tqdm[NoReturn]", report: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, face.image)
    if report:
        values = asdict(face)
        del values["image"]
        values |= values.pop("settings")
        target.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    first = f"{face.first_similarity:.3f} -> " if face.settings.steps else ""
    bar.write(f"{voice} -> {target}  similarity {first}{face.similarity:.3f}")
