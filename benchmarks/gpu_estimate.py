"""What a step on a GPU should take, computed from its operations and the data sheets of GPUs; nothing is measured.

    python -m benchmarks.gpu_estimate            prints the tables
    python -m benchmarks.gpu_estimate --write    also writes the rows to results/gpu_estimate.jsonl

Roofline per operator (10.1145/1498765.1498785): it takes the longer of its arithmetic and its memory traffic, at a
share of the published rates; each kernel adds the time of its launch. The shares are the assumptions below.
"""

import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import click
import numpy as np
import torch
from torch import nn

from benchmarks.estimate_tables import FILE, estimate_counts_table, estimate_table
from benchmarks.operations import Operation, OperationCounter, StepCount, count_steps, freezing_on_meta
from benchmarks.results import RESULTS, Row, machine, significant
from cmpc2 import ResNet, ResNetConfig
from cmpc2.resnet import fold_batch_norm
from voicestyle import torchscript
from voicestyle.bundle import GENERATOR_INTERFACE
from voicestyle.demo_bundle import ASSETS, DEFAULT_STEPS
from voicestyle.demo_encoders import FaceEncoder, FaceHead
from voicestyle.engine import Engine, Generator, VoiceObjective
from voicestyle.engine.capacity import SIZES, Trial, choose_capacity
from voicestyle.face_networks import DlibResNet
from voicestyle.generators import MobileStyleGAN, StyleGAN2
from voicestyle.generators.latents import LATENT_DIM
from voicestyle.latent_prior import LatentPrior
from voicestyle.manifest import Limits
from voicestyle.precision import adapt_convolutions_
from voicestyle.published.bundle import OPTIMISE_SIZE, STEPS
from voicestyle.worker.service_config import ServiceConfig

MATRIX_SHARE: Final = 0.5  # of the peak rate, in convolutions and matrix products whose tiles fill the GPU
TILE: Final = 64  # rows and columns of a result that one multiprocessor computes at a time
BANDWIDTH_SHARE: Final = 0.75  # of the memory's bandwidth, in element-wise operations and reductions
GROUPED_SHARE: Final = 0.4  # of the bandwidth, in convolutions with one filter for each channel
GRAPH_LAUNCH: Final = 2e-6  # seconds from the end of a kernel to the start of the next in a graph
HOST_LAUNCH: Final = 8e-6  # seconds in which the host launches one operation without a graph, autograd included
CONTEXT: Final = 2**30  # bytes of CUDA's context and of libraries' workspaces
RESERVE: Final = 2**30  # bytes beside the batch, for rendering
HELD: Final = 9  # directions that the demo bundle holds


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet.

    matrix: dense peak rates of matrix products in operations a second, by dtype; bfloat16 on tensor cores, float32
    without TF32. bandwidth: bytes a second. memory: bytes. multiprocessors: how many. dtype: that `auto` should choose.
    """

    name: str
    matrix: Mapping[torch.dtype, float]
    bandwidth: float
    memory: int
    multiprocessors: int
    dtype: torch.dtype


# Of NVIDIA's datasheets "NVIDIA H100 Tensor Core GPU", "NVIDIA L4 Tensor Core GPU" and "NVIDIA T4 Tensor Core GPU". The
# first two give the rates of tensor cores with sparsity, twice the dense ones here. A T4 has no bfloat16.
GPUS: Final = (
    Gpu("H100 SXM", {torch.bfloat16: 989e12, torch.float32: 67e12}, 3.35e12, 80 * 10**9, 132, torch.bfloat16),
    Gpu("L4", {torch.bfloat16: 121e12, torch.float32: 30.3e12}, 300e9, 24 * 10**9, 58, torch.bfloat16),
    Gpu("T4", {torch.float32: 8.1e12}, 320e9, 16 * 10**9, 40, torch.float32),
)


@dataclass(frozen=True)
class Networks:
    """The networks of a bundle, with any weights, and what else decides how much a step computes."""

    generator: nn.Module
    face_encoder: nn.Module
    embedding_dim: int
    prior: LatentPrior | None = None


@dataclass(frozen=True)
class Counts:
    """The steps of networks by batch size, and the bytes of their weights and of an item's rows in the engine."""

    steps: Mapping[int, StepCount]
    weights: int
    rows: int

    def memory(self, batch: int) -> int:
        """Bytes on the device for a batch of this size."""
        return CONTEXT + self.weights + batch * self.rows + self.steps[batch].peak


def full() -> Networks:
    """Networks of the published shapes."""
    return Networks(StyleGAN2(), fold_batch_norm(ResNet(3).eval()), ResNetConfig().embedding_dim)


def demo() -> Networks:
    """Networks of the demo bundle's shapes."""
    description = json.loads((ASSETS / "encoders.json").read_text("utf-8"))
    identity = np.eye(LATENT_DIM, dtype=np.float32)
    return Networks(
        MobileStyleGAN(),
        FaceEncoder(DlibResNet(), FaceHead(description["embedding_dim"], description["hidden"])),
        description["embedding_dim"],
        LatentPrior(identity, np.zeros(LATENT_DIM, np.float32), identity[:HELD]),
    )


# Steps of the whole schedule, and the networks.
NETWORKS: Final = {"full": (STEPS, full), "demo": (DEFAULT_STEPS, demo)}


def count(networks: Networks, dtype: torch.dtype, sizes: Sequence[int]) -> Counts:
    """Count the steps of the compiled networks, as a bundle loads them. The given modules lose their weights."""
    with freezing_on_meta():
        generator = _compiled(networks.generator, dtype, GENERATOR_INTERFACE)
        face_encoder = _compiled(networks.face_encoder, dtype)
        image_size = min(OPTIMISE_SIZE, cast(int, networks.generator.optimise_size))
        objective = VoiceObjective(face_encoder, embedding_dim=networks.embedding_dim, image_size=image_size)
        with OperationCounter() as making:
            engine = Engine(
                cast(Generator, generator),
                objective,
                latent_std=1.0,
                capacity=max(sizes),
                max_steps=Limits().steps,
                device="meta",
                prior=networks.prior,
            )
        steps = count_steps(engine)
    weights = sum(_weight_bytes(each, dtype) for each in (networks.generator, networks.face_encoder))
    return Counts({size: steps[size] for size in sizes}, weights, rows=making.count.peak // max(sizes))


def _compiled(module: nn.Module, dtype: torch.dtype, keep: Sequence[str] = ()) -> nn.Module:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.pt"
        torchscript.save(module.eval().requires_grad_(False), path)
        return torchscript.load(path, "meta", dtype, keep)


def _weight_bytes(module: nn.Module, dtype: torch.dtype) -> int:
    adapt_convolutions_(module.to("meta"), dtype)
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def arithmetic_seconds(operation: Operation, gpu: Gpu) -> float:
    """Seconds of the arithmetic of a convolution or matrix product; 0 for other operations.

    The result is computed in tiles, one on each multiprocessor at a time, so that a small result leaves some idle.
    """
    if not operation.flops:
        return 0.0
    if operation.grouped:  # no matrix product
        return operation.flops / (MATRIX_SHARE * gpu.matrix[torch.float32])
    rows, columns, matrices = operation.matrices
    tiles = math.ceil(rows / TILE) * math.ceil(columns / TILE) * matrices
    waves = math.ceil(tiles / gpu.multiprocessors)
    flops_of_tile = operation.flops / (rows * columns * matrices) * TILE**2
    return waves * gpu.multiprocessors * flops_of_tile / (MATRIX_SHARE * gpu.matrix[operation.dtype])


def traffic_seconds(operation: Operation, gpu: Gpu) -> float:
    """Seconds of reading the inputs and writing the results."""
    return operation.moved / ((GROUPED_SHARE if operation.grouped else BANDWIDTH_SHARE) * gpu.bandwidth)


def estimate(gpu: Gpu, name: str, counts: Counts, batch: int, steps: int) -> dict[str, Any]:
    """The row of one batch size. The times of arithmetic, memory and launches are the parts of a step with graphs.

    steps: of the whole schedule. Where arithmetic and memory traffic overlap, the longer one counts.
    """
    step = counts.steps[batch]
    times = [(arithmetic_seconds(each, gpu), traffic_seconds(each, gpu)) for each in step.operations]
    arithmetic = sum(first for first, second in times if first >= second)
    memory = sum(second for first, second in times if first < second)
    launches = GRAPH_LAUNCH * step.kernels
    seconds = arithmetic + memory + launches
    # The host launches ahead of the GPU, unless the GPU is faster.
    without = max(seconds, HOST_LAUNCH * step.kernels)
    return {
        "benchmark": "gpu_estimate",
        "networks": name,
        "gpu": gpu.name,
        "dtype": str(gpu.dtype).removeprefix("torch."),
        "batch": batch,
        "kernels": step.kernels,
        "gflop": significant(step.flops / 1e9),
        "gigabytes": significant(step.moved / 1e9),
        "activations_mib": round(step.peak / 2**20),
        "weights_mib": round(counts.weights / 2**20),
        "rows_mib": significant(counts.rows / 2**20),
        "arithmetic_ms": significant(1000 * arithmetic),
        "memory_ms": significant(1000 * memory),
        "launches_ms": significant(1000 * launches),
        "ms_per_step": significant(1000 * seconds),
        "ms_without_graphs": significant(1000 * without),
        "schedule_steps": steps,
        "faces_per_second": significant(batch / (steps * seconds)),
        "faces_per_second_without_graphs": significant(batch / (steps * without)),
        "memory_mib": round(counts.memory(batch) / 2**20),
    }


def with_capacity(gpu: Gpu, rows: Sequence[Row], iteration_seconds: float) -> list[Row]:
    """The rows of one GPU and one set of networks, each with the capacity that `live_requests: auto` would choose."""
    trials = {row["batch"]: Trial(row["ms_per_step"] / 1000, row["memory_mib"] * 2**20) for row in rows}
    sizes = sorted(trials)
    choice = choose_capacity(
        trials.__getitem__, seconds=iteration_seconds, free=gpu.memory, reserve=RESERVE, sizes=sizes
    )
    return [{**row, "capacity": choice.capacity, "reason": choice.reason} for row in rows]


def estimates(names: Iterable[str]) -> list[Row]:
    """All rows of these networks, with the commit whose operators were counted."""
    rows: list[Row] = []
    commit = machine()["commit"]
    for name in names:
        steps, make = NETWORKS[name]
        counts = {dtype: count(make(), dtype, SIZES) for dtype in dict.fromkeys(gpu.dtype for gpu in GPUS)}
        for gpu in GPUS:
            found = [estimate(gpu, name, counts[gpu.dtype], size, steps) for size in SIZES]
            rows += with_capacity(gpu, found, ServiceConfig().iteration_seconds)
    return [{**row, "commit": commit} for row in rows]


@click.command()
@click.option("--write", is_flag=True, help="Write the rows in place of those of the last time.")
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path), help="Folder of the rows.")
def main(write: bool, results: Path) -> None:
    """Compute what a step should take on GPUs, and print it as tables."""
    rows = estimates(NETWORKS)
    click.echo(estimate_counts_table(rows))
    for name in NETWORKS:
        click.echo(f"\n{name}\n\n{estimate_table(rows, name)}")
    if write:
        results.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (results / FILE).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
