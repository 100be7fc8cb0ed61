"""One measurement of one variant, in a process of its own that prints it as a line of JSON.

python -m benchmarks.measure time --subject demo --variant eager
python -m benchmarks.measure quality --subject demo --variant eager --face 0 --image face.npy
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import machine
from benchmarks.subjects import SUBJECTS, Networks
from benchmarks.variants import VARIANTS, Face
from voicestyle.engine import encoder_input
from voicestyle.images import to_pixels

MATMUL_DTYPES = (torch.float32, torch.bfloat16)


@click.group()
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", type=int, help="By default one for each core of this process.")
@click.pass_context
def main(context: click.Context, device: str, threads: int | None) -> None:
    """Measure one variant."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    context.obj = torch.device(device)


@main.command()
@click.option("--subject", required=True, type=click.Choice(list(SUBJECTS)))
@click.option("--variant", required=True, type=click.Choice(list(VARIANTS)))
@click.option("--batch", default=1, show_default=True)
@click.option("--warm-up", default=3, show_default=True, help="Steps before the clock starts.")
@click.option("--steps", default=3, show_default=True)
@click.pass_obj
def time(device: torch.device, subject: str, variant: str, batch: int, warm_up: int, steps: int) -> None:
    """Seconds a step, memory, and the rate of large matrix products right after."""
    here = machine.Machine.here(device)
    run = VARIANTS[variant].start(SUBJECTS[subject], range(batch), device)
    for _ in range(warm_up):
        run.step()
    began = machine.now(device)
    for _ in range(steps):
        run.step()
    seconds = (machine.now(device) - began) / steps
    found = {
        "machine": asdict(here),
        "seconds": seconds,
        "peak_resident_mib": machine.peak_resident_mib(),
        "peak_cuda_mib": machine.peak_cuda_mib(device),
        "matmul_gflops": {str(dtype).split(".")[1]: machine.matmul_gflops(device, dtype) for dtype in MATMUL_DTYPES},
    }
    click.echo(json.dumps(found))


@main.command()
@click.option("--subject", required=True, type=click.Choice(list(SUBJECTS)))
@click.option("--variant", required=True, type=click.Choice(list(VARIANTS)))
@click.option("--face", default=0, show_default=True)
@click.option("--image", required=True, type=click.Path(path_type=Path), help="Where the final image goes (.npy).")
@click.pass_obj
def quality(device: torch.device, subject: str, variant: str, face: int, image: Path) -> None:
    """The whole schedule; what it came to as the float32 networks see it, so that no variant judges itself."""
    networks = SUBJECTS[subject].networks()
    run = VARIANTS[variant].start(SUBJECTS[subject], range(face, face + 1), device)
    for _ in range(networks.steps):
        run.step()
    similarity, pixels = judge(networks, run.face(face), face)
    np.save(image, pixels)
    click.echo(json.dumps({"similarity": similarity}))


@torch.no_grad()
def judge(networks: Networks, face: Face, number: int) -> tuple[float, np.ndarray]:
    """cos(voice, image) of a final face, and its pixels [S, S, 3]."""
    image = networks.generator(face.latent, face.noise)
    seen = encoder_input(image, networks.image_size, networks.image_size)
    voice = networks.encoders.encode_voice(networks.voice(number))
    return F.cosine_similarity(voice, networks.encoders.encode_face(seen)).item(), to_pixels(image[0])


if __name__ == "__main__":
    main()
