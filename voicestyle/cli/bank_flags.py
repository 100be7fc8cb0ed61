"""The flags of all commands that invert photographs, and the build that they have in common."""

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from voicestyle.bank_builder import BankOptions, BuiltBank, Counts, build_bank
from voicestyle.bank_builder.ray_tasks import LOCAL
from voicestyle.cli.devices import usable_device
from voicestyle.photographs import Gates
from voicestyle.precision import DTYPES

T = TypeVar("T")
Command = Callable[..., T]
FILE = click.Path(path_type=Path)
GATES = {
    "max_faces": "Faces that are at least half as large as the largest one.",
    "min_score": "The detector's score of the face, in its own unit.",
    "min_size": "Edge of the aligned square in pixels of the file.",
    "max_yaw": "Turn of the head to a side, in degrees.",
    "max_pitch": "Turn of the head up or down, in degrees.",
    "min_sharpness": "Variance of the Laplacian of the aligned face at 256 pixels.",
    "max_outside": "Share of the face beyond the picture, 0 to 1.",
}


def generator_flags(command: Command[T]) -> Command[T]:
    """Decorate a command with the choice of the generator."""
    return _decorate(
        command,
        click.option(
            "--bundle", default=BankOptions.bundle, show_default=True, type=FILE, help="A bundle, for its generator."
        ),
        click.option("--stylegan", type=FILE, help="A StyleGAN2 checkpoint, in place of a bundle's generator."),
    )


def replacement_flags(command: Command[T]) -> Command[T]:
    """Decorate a command with the files of the frontal replacement, but for the CSV."""
    return _decorate(
        command,
        click.option("--frames", type=FILE, help="Frames of the CSV's videos: NAME/1.6/VIDEO/*.jpg."),
        click.option(
            "--clip", type=FILE, help="OpenAI's CLIP ViT-B/32, to choose photographs.  [default: the identity network]"
        ),
    )


def inversion_flags(command: Command[T]) -> Command[T]:
    """Decorate a command with loss, gates, schedule and device of an inversion."""
    return _decorate(
        command,
        click.option("--vgg", type=FILE, help="torchvision's VGG-16 weights, for the perceptual loss."),
        click.option("--lpips", type=FILE, help="The linear layers of LPIPS for --vgg.  [default: those of its wheel]"),
        click.option("--unweighted", is_flag=True, help="No linear layers, for a VGG-16 that is not torchvision's."),
        click.option("--identity", type=FILE, help="model_ir_se50.pth, for the identity loss."),
        click.option(
            "--cache", default=BankOptions.cache, show_default=True, type=FILE, help="For downloaded weights."
        ),
        click.option(
            "--detector",
            default=BankOptions.detector,
            show_default=True,
            help="Face detector: dlib, yunet, or auto, which is dlib where it is installed.",
        ),
        click.option("--align/--no-align", default=True, help="--no-align for aligned faces: only resize and crop."),
        *(_gate_flag(gate) for gate in fields(Gates)),
        click.option("--w-plus", is_flag=True, help="A latent row for each layer, [L, 512] in place of [512]."),
        click.option("--steps", default=BankOptions.steps, show_default=True, help="Steps of the inversion."),
        click.option("--seed", default=BankOptions.seed, show_default=True, help="Of the random noise."),
        click.option(
            "--dtype",
            default=BankOptions.dtype,
            show_default=True,
            type=click.Choice(list(DTYPES)),
            help="Of the convolutions of generator, VGG-16 and ArcFace.",
        ),
        click.option("--device", default=BankOptions.device, show_default=True, help="cpu or cuda."),
        click.option("--batch", type=int, help="Photographs inverted at once.  [default: 1 on a CPU, 8 on a GPU]"),
        click.option(
            "--threads", default=BankOptions.threads, show_default=True, help="Threads of torch in each process."
        ),
    )


def job_flags(command: Command[T]) -> Command[T]:
    """Decorate a command with shards, processes and Ray cluster of a build that can be continued."""
    return _decorate(
        command,
        click.option(
            "--shard-size",
            default=BankOptions.shard_size,
            show_default=True,
            help="Photographs of a shard; a batch holds no more.",
        ),
        click.option("--workers", default=BankOptions.workers, show_default=True, help="Processes on this machine."),
        click.option("--ray", metavar="ADDRESS", help="Run on a Ray cluster: its address, auto, or local."),
        click.option("--restart", is_flag=True, help="Discard an earlier build in the folder."),
    )


def run_build(photographs: tuple[Path, ...], output: Path, **values: Any) -> BuiltBank:
    """Build a bank with the values of these flags, with a bar and a line for each rejected photograph."""
    gates = Gates(**{gate.name: values.pop(gate.name) for gate in fields(Gates)})
    values["device"] = usable_device(values["device"], here=is_local(values.get("ray")))
    options = BankOptions(photographs, output, gates=gates, **values)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with closing(PhotographBar()) as progress, logging_redirect_tqdm():
        return build_bank(options, progress)


def is_local(ray: str | None) -> bool:
    """Whether this machine does the work, and not the nodes of a Ray cluster."""
    return ray in (None, LOCAL)


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


def _gate_flag(gate: Any) -> Callable[[Command[Any]], Command[Any]]:
    kind = int if isinstance(gate.default, int) else float
    shown: Any = True if gate.default is not None else "the detector's"
    flag = f"--{gate.name.replace('_', '-')}"
    return click.option(flag, type=kind, default=gate.default, show_default=shown, help=f"Gate: {GATES[gate.name]}")


def _decorate(command: Command[T], *options: Callable[[Command[T]], Command[T]]) -> Command[T]:
    for option in reversed(options):
        command = option(command)
    return command
