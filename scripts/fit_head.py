"""Fit the generator's 256-pixel head and write voicestyle/assets/demo/head.npz.

    python scripts/fit_head.py --work FOLDER [--wheel FILE] [--head FILE] [--faces N] [--epochs N] [--measure]

The work folder needs about 2 MB per face. An interrupted run resumes when it is started again with the same folder.
With --measure, only the PSNR of the existing head is computed, on 64 held-out faces.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from voicestyle.generators import DEFAULT_HEAD, WHEEL_NAME, from_wheel
from voicestyle.training.head import HELD_OUT_SEED, HeadOptions, fit_head, measure_head, save_head
from voicestyle.training.head_patches import PatchOptions, draw_patches

WHEEL = Path(".cache/wheels") / WHEEL_NAME
PATH = click.Path(path_type=Path)


def progress(title: str) -> Callable[[range], Iterable[int]]:
    return lambda steps: tqdm(steps, desc=title, mininterval=1.0)


@click.command(context_settings={"show_default": True})
@click.option("--work", type=PATH, default=Path(".cache/fit_head"), help="Folder for patches and checkpoint.")
@click.option("--wheel", type=PATH, default=WHEEL, help="Wheel of the generator.")
@click.option("--head", type=PATH, default=DEFAULT_HEAD, help="The .npz to write.")
@click.option("--faces", type=int, default=PatchOptions().faces, help="Number of training faces.")
@click.option("--epochs", type=int, default=HeadOptions().epochs, help="Passes over their patches.")
@click.option("--measure", is_flag=True, help="Only measure the existing head.")
@click.option("--held-out", type=click.IntRange(1), default=64, help="Number of faces to measure on.")
def main(work: Path, wheel: Path, head: Path, faces: int, epochs: int, measure: bool, held_out: int) -> None:
    """Fit the 256-pixel head on generated faces and measure its PSNR on held-out faces."""
    try:
        if not measure:
            generator = from_wheel(wheel, head=None)
            patches = draw_patches(generator, work, PatchOptions(faces=faces), progress("faces"))
            fit_head(generator.head, patches, HeadOptions(epochs=epochs), work / "checkpoint.pt", progress("steps"))
            save_head(generator.head, head)
        seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + held_out)
        psnr = measure_head(from_wheel(wheel, head), seeds, progress("held out"))
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"PSNR on {held_out} held-out faces: mean {psnr.mean():.2f} dB, median {np.median(psnr):.2f}, "
        f"min {psnr.min():.2f}, standard deviation {psnr.std():.2f} ({torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    main()
