"""`voicestyle request`: a voice to a face through a service that runs somewhere."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from tqdm import tqdm

from voicestyle.cli.files import FORMAT_OF_SUFFIX, format_of, write_whole

if TYPE_CHECKING:
    from voicestyle.client import Event, Face, Options, Preview, Settings

PREVIEWS: Final = 4  # where a folder is named for them and no number
LATER, WRONG = 1, 2  # exit codes


@click.command()
@click.argument("voice", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    default=Path("face.png"),
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .png, .jpg or .webp file.",
)
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The service.")
@click.option("--grpc", "target", metavar="HOST:PORT", help="Ask over gRPC, without TLS, in place of --url.")
@click.option("--steps", type=click.IntRange(1), help="Optimisation steps.  [default: the service's]")
@click.option(
    "--preset", help="default, or fast: about the same similarity in a quarter of the steps.  [default: the service's]"
)
@click.option("--seed", type=click.IntRange(0), help="Draws the noise.  [default: the service's]")
@click.option("--size", type=int, help="Pixels a side, such as 256 or 1024.  [default: the service's]")
@click.option(
    "--format", "form", type=click.Choice(sorted(set(FORMAT_OF_SUFFIX.values()))), help="[default: by the ending of -o]"
)
@click.option(
    "--previews", type=click.IntRange(0), help=f"Pictures on the way.  [default: 0, or {PREVIEWS} with --preview-dir]"
)
@click.option(
    "--preview-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Gets the previews, each named after the output and its step.  [default: the output's folder]",
)
@click.option(
    "--timeout",
    default=900.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds to wait in all, retries included.",
)
def request(
    voice: Path,
    output: Path,
    url: str,
    target: str | None,
    steps: int | None,
    preset: str | None,
    seed: int | None,
    size: int | None,
    form: str | None,
    previews: int | None,
    preview_dir: Path | None,
    timeout: float,
) -> None:
    """Ask a running service for the face that VOICE suggests.

    A service that is busy, or a connection that breaks, is asked again: the same voice and options give the same
    face. Exit code 2: the request cannot be answered as it is, for the service refused it, or a file or an option is
    wrong. Exit code 1: the service is busy, failed, cannot be reached or was too slow; try later.
    """
    try:
        from voicestyle.client import ClientError, Refused, Settings
    except ImportError as error:
        raise click.UsageError(f"{error}; pip install 'voicestyle[client]'") from error
    if previews is None:
        previews = 0 if preview_dir is None else PREVIEWS
    wanted = _format(output, form)
    gallery = _Gallery(preview_dir or output.parent, output.stem, previews)
    output.parent.mkdir(parents=True, exist_ok=True)
    options: Options = {
        "steps": steps,
        "seed": seed,
        "size": size,
        "format": wanted,
        "previews": previews,
        "preset": preset,
    }
    # Who waits long in the queue must not lose the place to begin anew at its end.
    settings = Settings(attempt_seconds=timeout, deadline_seconds=timeout)
    try:
        if target is None:
            face = _over_http(url, voice, options, settings, gallery)
        else:
            face = _over_grpc(target, voice, options, settings, gallery)
    except ClientError as error:
        _end(error, WRONG if isinstance(error, Refused) else LATER)
    write_whole(output, face.image)
    click.echo(
        f"{voice} -> {output}  similarity {face.first_similarity:.3f} -> {face.similarity:.3f}\n"
        f"{face.model}, {face.steps} steps, seed {face.seed}, {face.size} pixels a side, request {face.request_id}"
    )


class _Gallery:
    """The previews' files."""

    def __init__(self, folder: Path, stem: str, wanted: int) -> None:
        self._folder = folder
        self._stem = stem
        self._wanted = wanted
        if wanted:
            folder.mkdir(parents=True, exist_ok=True)

    def hang(self, preview: Preview) -> None:
        if self._wanted:
            name = f"{self._stem}-{preview.step:0{len(str(preview.steps))}d}"
            ending = next((ending for ending, form in FORMAT_OF_SUFFIX.items() if form == preview.format), ".jpg")
            write_whole(self._folder / f"{name}{ending}", preview.image)


class _Bar:
    """A progress bar that a stream's events move."""

    def __init__(self, bar: tqdm[NoReturn]) -> None:
        self._bar = bar

    def show(self, event: Event) -> None:
        from voicestyle.client import Progress, Retrying, Started

        match event:
            case Started():
                self._bar.set_description_str("steps")
                self._bar.reset(event.steps)
            case Progress():
                self._bar.set_postfix_str(f"similarity {event.similarity:.3f}", refresh=False)
                self._bar.update(event.step - self._bar.n)
            case Retrying():
                self._bar.write(f"{event.error}; asking again in {event.delay:.1f} s", file=sys.stderr)
                self._bar.set_description_str("waiting")
                self._bar.reset()
            case _:
                pass


def _over_http(url: str, voice: Path, options: Options, settings: Settings, gallery: _Gallery) -> Face:
    from voicestyle.client import Client, Face, Preview

    # Progress is told only where a preview is asked for, and there must be fewer of them than steps.
    least = 0 if options.get("steps") == 1 else 1
    asked: Any = options | {"previews": max(least, options.get("previews") or 0)}
    try:
        client = Client(url, settings)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error
    # Every event is drawn, for they are seldom, and none is left behind: an error is one line.
    line = tqdm(desc="waiting", unit="step", mininterval=0, leave=False)
    with client, closing(client.stream(voice, **asked)) as events, line:
        bar = _Bar(line)
        for event in events:
            bar.show(event)
            if isinstance(event, Preview):
                gallery.hang(event)
            if isinstance(event, Face):
                return event
    raise AssertionError("a stream ends with its face or an error")


def _over_grpc(target: str, voice: Path, options: Options, settings: Settings, gallery: _Gallery) -> Face:
    from voicestyle.client import GrpcClient

    with GrpcClient(target, settings) as client:
        face = client.generate(voice, **options)
    for preview in face.previews:
        gallery.hang(preview)
    return face


def _format(output: Path, form: str | None) -> str:
    """The picture's format. Raises click.BadParameter where the file's name does not say it or says another."""
    named = format_of(output)
    if form not in (None, named):
        raise click.BadParameter(f"{output} is a file of {named}, got --format {form}", param_hint="-o")
    return named


def _end(error: Exception, code: int) -> NoReturn:
    click.echo(f"voicestyle: {' '.join(str(error).split())}", err=True)
    sys.exit(code)
