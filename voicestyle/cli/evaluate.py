"""`voicestyle evaluate`: measure encoders by the published protocols, and the faces of a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from voicestyle.cli.devices import prepared_device
from voicestyle.demo_bundle import ASSETS
from voicestyle.evaluation.errors import EvaluationError
from voicestyle.precision import CHOICES, choose_dtype
from voicestyle.presets import DEFAULT, PRESETS
from voicestyle.voice_conditions import CONDITIONS

if TYPE_CHECKING:
    from voicestyle.evaluation.embeddings import Embeddings
    from voicestyle.evaluation.encoders import Encoders

PATH = click.Path(path_type=Path)
OUTPUT = Path("evaluation")
CACHE = Path(".cache/evaluation")
JUDGE = Path(".cache/face_judge")
NEEDED = ("jinja2", "matplotlib", "scipy", "sklearn")

output_option = click.option(
    "-o", "--output", default=OUTPUT, show_default=True, type=PATH, help="Folder for report.json and report.html."
)
resamples_option = click.option(
    "--resamples", default=1000, show_default=True, type=click.IntRange(100), help="Resampled sets for the intervals."
)
device_option = click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 …")


@click.group()
def evaluate() -> None:
    """Measure encoders by the published protocols, and the faces of a bundle.

    Both commands write report.json and report.html into one folder; each replaces its own part.
    """


@evaluate.command()
@click.argument("lists", nargs=-1, required=True, type=PATH)
@click.option("--voices", required=True, type=PATH, help="Folder of recordings or log-mels, or a .npz of embeddings.")
@click.option("--faces", required=True, type=PATH, help="Folder of images, or a .npz of embeddings.")
@click.option("--bundle", type=PATH, help="Bundle whose encoders embed the folders.")
@click.option("--cmpc", type=PATH, help='CMPC checkpoint, {"model": …}, whose encoders embed the folders.')
@click.option("--face-size", default=224, show_default=True, type=click.IntRange(32), help="Input of --cmpc in pixels.")
@click.option("--people", type=PATH, help="vox1_meta.csv: also evaluates the groups within unrestricted lists.")
@click.option(
    "--one-to-n", default=0, type=click.IntRange(0, 100), help="Also 1:3 … 1:N matching, with drawn candidates."
)
@click.option("--skip-missing", is_flag=True, help="Leave out trials whose files are missing or unusable.")
@click.option("--cache", default=CACHE, show_default=True, type=PATH, help="Folder of computed embeddings.")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of resampling and drawn candidates."
)
@resamples_option
@device_option
@output_option
def recognition(
    lists: tuple[Path, ...],
    voices: Path,
    faces: Path,
    bundle: Path | None,
    cmpc: Path | None,
    face_size: int,
    people: Path | None,
    one_to_n: int,
    skip_missing: bool,
    cache: Path,
    seed: int,
    resamples: int,
    device: str,
    output: Path,
) -> None:
    """Matching, verification and retrieval with LISTS, as published with CMPC.

    The first line of a list tells its protocol. docs/evaluation.md shows the formats.
    """
    _check_extra()
    from voicestyle.evaluation.embeddings import read_embeddings
    from voicestyle.evaluation.encoders import embed_folder
    from voicestyle.evaluation.intervals import Bootstrap
    from voicestyle.evaluation.lists import read_list
    from voicestyle.evaluation.page import earlier_report, write_report
    from voicestyle.evaluation.people import read_people
    from voicestyle.evaluation.recognition import check_lists, evaluate_lists, keys_of
    from voicestyle.evaluation.trials import Features

    earlier_report(output)  # another file of that name is an error now, not after the work
    read = [read_list(path) for path in lists]
    check_lists(read)
    table = read_people(people) if people else None
    encoders: Encoders | None = None
    if not (voices.suffix == ".npz" and faces.suffix == ".npz"):
        encoders = _encoders(bundle, cmpc, face_size, prepared_device(device))
    elif bundle or cmpc:
        raise click.UsageError("--bundle and --cmpc embed folders; both --voices and --faces are .npz files")

    def embeddings(kind: str, source: Path, keys: Sequence[str]) -> Embeddings:
        if source.suffix == ".npz" or not encoders:
            return read_embeddings(source)
        return embed_folder(encoders, source, kind, keys, cache, lambda keys: tqdm(keys, f"embedding {kind}s"))

    voice_keys, face_keys = keys_of(read)
    features = Features(
        embeddings("voice", voices, voice_keys), embeddings("face", faces, face_keys), skip_missing=skip_missing
    )
    section = evaluate_lists(read, features, Bootstrap(resamples, seed), people=table, one_to_n=one_to_n)
    report = write_report(output, recognition=section)
    for matching in section.matching:
        group = f"{matching.group or '–'}{' (derived)' if matching.derived else ''}"
        click.echo(f"{matching.list}  {matching.direction}  {group}  1:{matching.candidates}  {matching.accuracy}")
    for verification in section.verification:
        group = f"{verification.group or '–'}{' (derived)' if verification.derived else ''}"
        click.echo(f"{verification.list}  {group}  AUC {verification.auc}  EER {verification.eer}")
    for retrieval in section.retrieval:
        click.echo(f"{retrieval.direction}  mAP {retrieval.mean_average_precision}  chance {retrieval.chance:.3f}")
    click.echo(f"full report: {report}")


@evaluate.command()
@click.option("--voices", required=True, type=PATH, help="Folder of recordings, with speakers.csv (file,speaker,sex).")
@click.option("--speakers", type=PATH, help="Another table of the recordings.  [default: speakers.csv in --voices]")
@click.option("--held-out", is_flag=True, help="Only the speakers that the demo's training held out, without a table.")
@click.option("--per-sex", type=click.IntRange(1), help="The first speakers of each sex.  [default: all]")
@click.option(
    "--halves/--no-halves", default=True, show_default=True, help="Split the recording of a speaker who has only one."
)
@click.option("--bundle", default=Path("bundles/demo"), show_default=True, type=PATH, help="The bundle to evaluate.")
@click.option("--steps", type=click.IntRange(1), help="Optimisation steps.  [default: the bundle's]")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of every face and of resampling."
)
@click.option("--batch", default=4, show_default=True, type=click.IntRange(1), help="Slots in the batch.")
@click.option(
    "--dtype", default="float32", show_default=True, type=click.Choice(CHOICES), help="Of generator and face encoder."
)
@click.option(
    "--judge", default=JUDGE, show_default=True, type=PATH, help="Folder for the judge of sex (330 MB, by npm)."
)
@click.option("--no-judge", is_flag=True, help="Leave out sex agreement, for which Node.js is needed.")
@click.option("--instant", is_flag=True, help="Also the instant faces, by the bundle's mapper, beside first and last.")
@click.option(
    "--conditions",
    default="",
    help=f"Also each recording under these conditions: all, or some of {', '.join(CONDITIONS)}, split at commas.",
)
@click.option(
    "--condition-preset",
    default=DEFAULT,
    show_default=True,
    type=click.Choice(tuple(PRESETS)),
    help="Preset of the faces under conditions.",
)
@click.option("--sensitivity", is_flag=True, help="Also how much similarity depends on background, light and colour.")
@click.option("--figure", type=PATH, help="JPEG to write with first and last faces of eight speakers.")
@click.option("--sheet", type=PATH, help="JPEG to write with all kinds of faces of the first speakers of the table.")
@click.option(
    "--sheet-speakers", default=20, show_default=True, type=click.IntRange(1), help="Number of speakers of --sheet."
)
@resamples_option
@device_option
@output_option
def generation(
    voices: Path,
    speakers: Path | None,
    held_out: bool,
    per_sex: int | None,
    halves: bool,
    bundle: Path,
    steps: int | None,
    seed: int,
    batch: int,
    dtype: str,
    judge: Path,
    no_judge: bool,
    instant: bool,
    conditions: str,
    condition_preset: str,
    sensitivity: bool,
    figure: Path | None,
    sheet: Path | None,
    sheet_speakers: int,
    resamples: int,
    device: str,
    output: Path,
) -> None:
    """Generate faces of a folder of recordings and measure them.

    Similarity, sex agreement, speaker consistency, diversity, and drift of skin and light; on request also under
    recording conditions.
    """
    _check_extra()
    from voicestyle.evaluation.generation import GenerationEvaluation
    from voicestyle.evaluation.intervals import Bootstrap
    from voicestyle.evaluation.judge import install_judge, judge_faces, judge_name
    from voicestyle.evaluation.page import earlier_report, write_report
    from voicestyle.evaluation.speakers import choose_recordings, held_out_speakers, read_speakers
    from voicestyle.evaluation.summary import summary
    from voicestyle.face_networks import fetch_mobileface

    earlier_report(output)
    if held_out and speakers:
        raise click.UsageError("give either --held-out or --speakers")
    listed = held_out_speakers(ASSETS) if held_out else read_speakers(speakers or voices / "speakers.csv")
    names = _conditions(conditions)
    recordings = choose_recordings(listed, voices, halves=halves, per_sex=per_sex)
    used = prepared_device(device)
    if not no_judge:
        install_judge(judge)
    evaluation = GenerationEvaluation(
        bundle=bundle,
        output=output,
        recogniser=fetch_mobileface(),
        judge=None if no_judge else lambda faces: judge_faces(judge, faces),
        judge_name=judge_name(),
        bootstrap=Bootstrap(resamples, seed),
        figure=figure,
        sheet=sheet,
        sheet_speakers=sheet_speakers,
        steps=steps,
        seed=seed,
        instant=instant,
        conditions=names,
        condition_preset=condition_preset,
        sensitivity=sensitivity,
        device=used,
        dtype=choose_dtype(dtype, used),
        capacity=batch,
    )

    def progress(numbers: range, task: str) -> Iterable[int]:
        return tqdm(numbers, task)

    section = evaluation.run(recordings, progress)
    report = write_report(output, generation=section)
    for name, reason in section.skipped.items():
        click.echo(f"skipped {name}: {reason}", err=True)
    for line in summary(section):
        click.echo(line)
    click.echo(f"full report: {report}")


def _conditions(text: str) -> tuple[str, ...]:
    """The conditions that --conditions names, in the order of `CONDITIONS`."""
    given = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := next((name for name in given if name not in ("all", *CONDITIONS)), None):
        raise click.UsageError(f"--conditions must be all or some of {', '.join(CONDITIONS)}, received {unknown!r}")
    return tuple(name for name in CONDITIONS if name in given or "all" in given)


def _encoders(bundle: Path | None, cmpc: Path | None, face_size: int, device: str) -> Encoders:
    from voicestyle.evaluation.encoders import bundle_encoders, checkpoint_encoders

    if bundle and not cmpc:
        return bundle_encoders(bundle, device)
    if cmpc and not bundle:
        return checkpoint_encoders(cmpc, face_size, device)
    raise click.UsageError("folders of recordings and images need the encoders of either --bundle or --cmpc")


def _check_extra() -> None:
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise EvaluationError(f"this command needs {', '.join(missing)}: pip install 'voicestyle[evaluate]'")
