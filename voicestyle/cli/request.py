"""`voicestyle request`: a face from a running service."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import click
from tqdm import tqdm

from voicestyle.cli.files import FORMAT_OF_SUFFIX, format_of
from voicestyle.cli.options import option_flags
from voicestyle.presets import INSTANT
from voicestyle.whole_files import write_whole

if TYPE_CHECKING:
    from voicestyle.client import Event, Preview
    from voicestyle.options import OptionValues

PREVIEWS: Final = 4  # with --preview-dir but without --previews
TRY_LATER, BAD_REQUEST = 1, 2  # exit codes


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
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="URL of the service.")
@click.option("--grpc", "target", metavar="HOST:PORT", help="Use gRPC, without TLS, in place of --url.")
@option_flags(local=False, format="by the suffix of -o", previews=f"0, or {PREVIEWS} with --preview-dir")
@click.option(
    "--preview-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the previews; their names are the output's with the step.  [default: the output's folder]",
)
@click.option(
    "--timeout",
    default=900.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds to wait in all, retries included.",
)
def request(
    voice: Path, output: Path, url: str, target: str | None, preview_dir: Path | None, timeout: float, **options: Any
) -> None:
    """Send VOICE to a running service and write the face that it suggests.

    Requests are repeated while the service is overloaded or the connection breaks: the same voice and options give
    the same face. Exit code 2: the request cannot succeed as it is (the service rejected it, or a file or an option is
    wrong). Exit code 1: the service is overloaded, failed, cannot be reached or was too slow; try again later.
    """
    try:
        from voicestyle.client import APIError, BadRequestError, Face, Preview
    except ImportError as error:
        raise click.UsageError(f"{error}; pip install 'voicestyle[client]'") from error
    given, options["format"] = options["format"], format_of(output)
    if given not in (None, options["format"]):
        raise click.BadParameter(f"the suffix of {output} stands for {options['format']}, got --format {given}")
    if options["previews"] is None and preview_dir:
        options["previews"] = PREVIEWS
    folder = preview_dir or output.parent
    output.parent.mkdir(parents=True, exist_ok=True)
    if options["previews"]:
        folder.mkdir(parents=True, exist_ok=True)
    face = None
    # Each event is drawn, because events are rare. leave=False: an error is one line, without an empty bar.
    bar = tqdm(desc="waiting", unit="step", mininterval=0, leave=False)
    try:
        with closing(_events(url, target, voice, timeout, cast("OptionValues", options))) as events, bar:
            for event in events:
                _update(bar, event)
                if isinstance(event, Preview) and options["previews"]:
                    _write_preview(folder, output.stem, event)
                if isinstance(event, Face):
                    face = event
    except APIError as error:
        click.echo(f"voicestyle: {' '.join(str(error).split())}", err=True)
        sys.exit(BAD_REQUEST if isinstance(error, BadRequestError) else TRY_LATER)
    assert face is not None
    write_whole(output, face.image)
    first = f"{face.first_similarity:.3f} -> " if face.steps else ""
    click.echo(
        f"{voice} -> {output}  similarity {first}{face.similarity:.3f}\n"
        f"{face.model}, {face.steps} steps, seed {face.seed}, {face.size} pixels a side, request {face.request_id}"
    )


def _events(url: str, target: str | None, voice: Path, timeout: float, options: OptionValues) -> Generator[Event]:
    from voicestyle.client import Client, GrpcClient

    # One attempt may take the whole time: a retry would start again at the end of the server's queue.
    if target is not None:
        with GrpcClient(target, timeout=timeout, deadline=timeout) as client:
            face = client.generate(voice, **options)
        yield from face.previews
        yield face
        return
    try:
        client = Client(url, timeout=timeout, deadline=timeout)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error
    # The service reports progress only with previews, and their number must be below that of the steps.
    steps = options.get("steps")
    if steps is None and options.get("preset") == INSTANT:
        steps = 0
    least = 0 if steps in (0, 1) else 1
    with_progress: OptionValues = {**options, "previews": max(least, options.get("previews") or 0)}
    with client, closing(client.stream(voice, **with_progress)) as events:
        yield from events


def _update(bar: tqdm[NoReturn], event: Event) -> None:
    from voicestyle.client import Progress, Retrying, Started

    match event:
        case Started():
            bar.set_description_str("steps")
            bar.reset(event.steps)
        case Progress():
            bar.set_postfix_str(f"similarity {event.similarity:.3f}", refresh=False)
            bar.update(event.step - bar.n)
        case Retrying():
            bar.write(f"{event.error}; trying again in {event.delay:.1f} s", file=sys.stderr)
            bar.set_description_str("waiting")
            bar.reset()
        case _:
            pass


def _write_preview(folder: Path, stem: str, preview: Preview) -> None:
    name = f"{stem}-{preview.step:0{len(str(preview.steps))}d}"
    suffix = next((suffix for suffix, form in FORMAT_OF_SUFFIX.items() if form == preview.format), ".jpg")
    write_whole(folder / f"{name}{suffix}", preview.image)
