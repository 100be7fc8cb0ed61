"""What a step of the inversion costs, against the published projector's own step with the same losses.

    python -m benchmarks.inversion                half an hour on two cores
    python -m benchmarks.inversion --quick        one repeat of each, in minutes

Networks of published shapes with random weights: StyleGAN2 of 256 pixels, VGG-16 with LPIPS' layers, IR-SE50. Each
measurement runs in a new process. All variants are measured once, then all of them again.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from torch import Tensor, nn

from benchmarks.measure import now, peak_resident_mib
from benchmarks.networks import Synthetic, random_vgg16
from benchmarks.published_loop import photograph_distance, published_loop
from benchmarks.results import RESULTS, MeasurementError, Row, append, machine, run_process, significant, spread
from benchmarks.tables import PROJECTOR, inversion_table
from cmpc2 import ResNetConfig
from voicestyle.engine import Engine, Schedule
from voicestyle.face_networks import IrSe50
from voicestyle.generators import StyleGAN2Config
from voicestyle.inversion import IdentityTerm, InversionLoss, PerceptualTerm
from voicestyle.inversion.inverter import LEARNING_RATE, InversionOptions
from voicestyle.precision import DTYPES, adapt_convolutions_
from voicestyle.serving import stop_on_signals
from voicestyle.serving.server import ALLOCATOR, WORKER

SOURCE = Synthetic(StyleGAN2Config(), ResNetConfig())
SCHEDULE = Schedule(base_lr=LEARNING_RATE)
STEPS = InversionOptions.steps
QUALITY_STEPS = 20
FREED_MEMORY_KEPT = f"{PROJECTOR}, freed memory kept"
VARIANTS: Mapping[str, Mapping[str, str]] = {
    PROJECTOR: {},
    FREED_MEMORY_KEPT: ALLOCATOR,
    "float32": WORKER,
    "bfloat16": WORKER,
}


def photographs(count: int) -> Tensor:
    """Images [N, 3, 256, 256] of the generator, with other noise maps for each."""
    networks = SOURCE.load()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        w = torch.stack([networks.first_latent(number) for number in range(count)])
        noise = [torch.randn(count, 1, *shape, generator=draw) for shape in _noise_shapes(networks.generator)]
        return networks.generator(w, noise).clamp(-1, 1)


def losses() -> tuple[PerceptualTerm, IrSe50]:
    """LPIPS and the identity network, the same on every machine."""
    torch.manual_seed(2)
    identity = IrSe50()
    linear = [0.1 * torch.rand(1, width, 1, 1) for width in (64, 128, 256, 512, 512)]
    return PerceptualTerm(random_vgg16(), linear), identity.eval()


def start(variant: str, batch: int, steps: int) -> tuple[Callable[[], object], Callable[[], Tensor]]:
    """A function that takes one step with all photographs, and one that returns the latents [N, 512] so far."""
    return (
        _start_published(batch, steps) if variant in (PROJECTOR, FREED_MEMORY_KEPT) else _start(variant, batch, steps)
    )


def _start_published(batch: int, steps: int) -> tuple[Callable[[], object], Callable[[], Tensor]]:
    networks, (perceptual, identity) = SOURCE.load(), losses()
    targets, draw = photographs(batch), torch.Generator().manual_seed(3)
    states = published_loop(
        SOURCE.published_generator(),
        photograph_distance(
            lambda ours, theirs: perceptual(ours, perceptual.target(theirs)), identity.requires_grad_().embed, targets
        ),
        first_latent=_first_latent(networks.generator).expand(batch, -1),
        first_noise=[torch.randn(batch, 1, *shape, generator=draw) for shape in _noise_shapes(networks.generator)],
        latent_noise=torch.randn(steps, batch, 512, generator=draw),
        latent_std=networks.latent_std,
        base_lr=SCHEDULE.base_lr,
    )
    last: list[Tensor] = []

    def step() -> None:
        last[:] = [next(states).latent]

    return step, lambda: last[0]


def _start(variant: str, batch: int, steps: int) -> tuple[Callable[[], object], Callable[[], Tensor]]:
    networks, (perceptual, identity) = SOURCE.load(), losses()
    dtype = DTYPES[variant]
    first, targets = _first_latent(networks.generator), photographs(batch)
    for module in (networks.generator, perceptual):
        adapt_convolutions_(module, dtype)
    network = identity.to(dtype).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    loss = InversionLoss(variant, [perceptual, IdentityTerm(network)], network)
    engine = Engine(
        networks.generator,  # pyright: ignore[reportArgumentType]
        loss,
        latent_std=networks.latent_std,
        capacity=batch,
        max_steps=steps,
        schedule=SCHEDULE,
    )
    for number, target in enumerate(targets):
        engine.add(number, loss.target(target), first, seed=number, steps=steps)
    return engine.step, lambda: torch.cat([engine.outcome(number).latent for number in range(batch)])


def _first_latent(generator: nn.Module) -> Tensor:
    with torch.no_grad():
        return generator.map(torch.randn(1000, 512, generator=torch.Generator().manual_seed(4))).mean(dim=0)  # pyright: ignore[reportCallIssue]


def _noise_shapes(generator: nn.Module) -> list[list[int]]:
    return generator.noise_shapes  # pyright: ignore[reportReturnType]


def time(variant: str, batch: int, warm_up: int, steps: int) -> dict[str, Any]:
    """Seconds a step after `warm_up` steps, and peak memory."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    here, where = machine(), torch.device("cpu")
    step, _ = start(variant, batch, warm_up + steps)
    for _ in range(warm_up):
        step()
    began = now(where)
    for _ in range(steps):
        step()
    seconds = (now(where) - began) / steps
    return {"machine": here, "steps": steps, "seconds": seconds, "peak_resident_mib": peak_resident_mib()}


def quality(variant: str) -> dict[str, float]:
    """The loss of one photograph after a schedule of a few steps, as the float32 networks see it."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    step, latents = start(variant, 1, QUALITY_STEPS)
    for _ in range(QUALITY_STEPS):
        step()
    networks, (perceptual, identity) = SOURCE.load(), losses()
    loss = InversionLoss("judge", [perceptual, IdentityTerm(identity)], identity)
    noise = [torch.zeros(1, 1, *shape) for shape in _noise_shapes(networks.generator)]
    with torch.no_grad():
        image = networks.generator(latents().float(), noise)
        return {"loss": float(loss(image, [part[None] for part in loss.target(photographs(1)[0])])[0])}


@dataclass
class Case:
    """A variant at one batch size, and its measurements so far."""

    variant: str
    batch: int
    times: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    quality: Row | None = None
    error: str | None = None

    def measure(self, function: str, **arguments: object) -> dict[str, Any] | None:
        """Call a function of this module in a new process; None, and the error is kept, if it failed before or now."""
        if self.error is None:
            try:
                environment = VARIANTS[self.variant]
                return run_process("benchmarks.inversion", function, environment, variant=self.variant, **arguments)
            except MeasurementError as error:
                self.error = str(error)
        return None

    def row(self) -> Row:
        """The row of results."""
        row: dict[str, Any] = {
            "benchmark": "inversion", "variant": self.variant, "batch": self.batch, "error": self.error,
        }  # fmt: skip
        if not self.times:
            return row | {"machine": machine()}
        ms = [1000 * each["seconds"] / self.batch for each in self.times]
        return row | {
            "machine": max((each["machine"] for each in self.times), key=lambda each: each["load_average"]),
            "repeats": len(self.times),
            "steps_per_repeat": self.times[0]["steps"],
            "ms_per_step_and_photograph": spread(ms),
            "photographs_per_hour": significant(3_600_000 / (median(ms) * STEPS)),
            "peak_resident_mib": round(max(each["peak_resident_mib"] for each in self.times)),
            "quality": self.quality,
        }


@click.command()
@click.option("--variant", "variants", multiple=True, type=click.Choice(list(VARIANTS)), help="By default all.")
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1), default=(8,), help="By default 8.")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1), help="Processes for each variant.")
@click.option("--warm-up", default=1, show_default=True, type=click.IntRange(0), help="Steps before the measured ones.")
@click.option("--steps", default=2, show_default=True, type=click.IntRange(1), help="Steps of each repeat.")
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path), help="Folder; rows are appended.")
@click.option("--quick", is_flag=True, help="One repeat without quality; rows are printed, not written.")
def main(
    variants: Sequence[str],
    batches: Sequence[int],
    repeats: int,
    warm_up: int,
    steps: int,
    results: Path,
    quick: bool,
) -> None:
    """Measure the inversion's step, write a row for each batch size and variant, and print them."""
    cases = [Case(variant, batch) for batch in batches for variant in variants or VARIANTS]
    try:
        with stop_on_signals():
            for repeat in range(1 if quick else repeats):
                for case in cases:
                    click.echo(f"{case.variant}, batch {case.batch}: repeat {repeat + 1}", err=True)
                    if measured := case.measure("time", batch=case.batch, warm_up=warm_up, steps=steps):
                        case.times.append(measured)
            for case in () if quick else cases:
                case.quality = case.measure("quality")
    finally:  # an interrupted run keeps its measurements
        rows = [case.row() for case in cases if case.times or case.error]
        if not quick:
            append(results / "inversion.jsonl", rows)
        click.echo(inversion_table(rows))


if __name__ == "__main__":
    main()
