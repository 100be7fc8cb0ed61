"""`voicestyle bank`: a latent bank from photographs."""

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from voicestyle.bank_builder import BankOptions, Counts, build_bank, rewrite_report
from voicestyle.cli.build import BUNDLE, FILE
from voicestyle.cli.devices import usable_device
from voicestyle.photographs import Gates
from voicestyle.precision import DTYPES

T = TypeVar("T")


def gate_flags(command: Callable[..., T]) -> Callable[..., T]:
    """Decorate a command with one flag per gate, each passed by the gate's name."""
    for gate in reversed(fields(Gates)):
        flag = f"--{gate.name.replace('_', '-')}"
        text = f"Gate: {gate.name.replace('_', ' ')}."
        kind = int if isinstance(gate.default, int) else float
        shown: Any = True if gate.default is not None else "the detector's"
        command = click.option(flag, type=kind, default=gate.default, show_default=shown, help=text)(command)
    return command


class PhotographBar:
    """A bar of photographs with rate and time left, from the first report of progress on."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None

    def __call__(self, counts: Counts) -> None:
        """Show the progress."""
        if self._bar is None:
            # The rate is that of this run, without what an earlier one has done.
            self._bar = tqdm(
                desc="photographs", total=counts.total, initial=counts.resumed, unit="photo", dynamic_ncols=True
            )
        self._bar.set_postfix(kept=counts.kept, rejected=counts.rejected, refresh=False)
        self._bar.update(counts.done - self._bar.n)
        self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


@click.group()
def bank() -> None:
    """Build a latent bank: photographs are judged, aligned and inverted."""


@bank.command()
@click.argument("photographs", nargs=-1, required=True, type=FILE)
@click.option("-o", "--output", required=True, type=FILE, help="The folder of the build; a later run continues it.")
@click.option("--bundle", default=BUNDLE, show_default=True, type=FILE, help="A bundle, for its generator.")
@click.option("--stylegan", type=FILE, help="A StyleGAN2 checkpoint, in place of a bundle's generator.")
@click.option("--vgg", type=FILE, help="torchvision's VGG-16 weights, for the perceptual loss.")
@click.option("--lpips", type=FILE, help="The linear layers of LPIPS for --vgg.  [default: those of its wheel]")
@click.option("--unweighted", is_flag=True, help="No linear layers, for a VGG-16 that is not torchvision's.")
@click.option("--identity", type=FILE, help="model_ir_se50.pth, for the identity loss.")
@click.option("--cache", default=BankOptions.cache, show_default=True, type=FILE, help="Of the stand-in network.")
@click.option("--csv", type=FILE, help="training.csv: latents of its videos, by frontal replacement.")
@click.option("--frames", type=FILE, help="Frames of these videos: NAME/1.6/VIDEO/*.jpg.")
@click.option(
    "--clip", type=FILE, help="OpenAI's CLIP ViT-B/32, to choose photographs.  [default: the identity network]"
)
@click.option("--detector", default=BankOptions.detector, show_default=True, help="As of the photographs' judge.")
@gate_flags
@click.option("--w-plus", is_flag=True, help="A latent for each layer, [L, 512] in place of [512].")
@click.option("--steps", default=BankOptions.steps, show_default=True, help="Steps of the inversion.")
@click.option("--seed", default=BankOptions.seed, show_default=True, help="With the key it determines an inversion.")
@click.option("--dtype", default=BankOptions.dtype, show_default=True, type=click.Choice(list(DTYPES)))
@click.option("--device", default=BankOptions.device, show_default=True, help="cpu or cuda.")
@click.option("--batch", default=BankOptions.batch, show_default=True, help="Photographs that are inverted at once.")
@click.option("--shard-size", default=BankOptions.shard_size, show_default=True, help="Photographs of a shard.")
@click.option("--workers", default=BankOptions.workers, show_default=True, help="Processes on this machine.")
@click.option("--threads", default=BankOptions.threads, show_default=True, help="Threads of each process.")
@click.option("--ray", metavar="ADDRESS", help="Run on a Ray cluster: its address, auto, or local for this machine.")
@click.option("--restart", is_flag=True, help="Discard an earlier build in the folder.")
def build(photographs: tuple[Path, ...], ray: str | None, device: str, **values: Any) -> None:
    """A bank of PHOTOGRAPHS, files or folders: latents.pt, bank.json and report.html.

    A run that was interrupted continues where it stopped. The bank has the same bytes whatever the shards, workers
    or interruptions.
    """
    gates = Gates(**{gate.name: values.pop(gate.name) for gate in fields(Gates)})
    # With Ray, the nodes have the GPUs.
    device = device if ray is not None else usable_device(device)
    options = BankOptions(photographs, ray=ray, device=device, gates=gates, **values)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with closing(PhotographBar()) as progress, logging_redirect_tqdm():
        built = build_bank(options, progress)
    click.echo(str(built))


@bank.command()
@click.argument("folder", type=FILE)
def report(folder: Path) -> None:
    """Write bank and report of the finished build in FOLDER again, from its shards."""
    click.echo(str(rewrite_report(folder)))
