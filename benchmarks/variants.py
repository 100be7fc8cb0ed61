"""The implementations of a step that are compared. A new one is one more line in `VARIANTS`."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from benchmarks.networks import Networks, Source, Synthetic
from benchmarks.published_loop import Step, published_loop, voice_distance
from cmpc2.resnet import ResNet, fold_batch_norm
from voicestyle import torchscript
from voicestyle.bundle import GENERATOR_INTERFACE
from voicestyle.engine import CudaCapture, Engine, Generator, Schedule, VoiceObjective
from voicestyle.engine.step_graphs import Capture
from voicestyle.precision import AUTO, DTYPES, adapt_convolutions_, choose_dtype
from voicestyle.serving.server import ALLOCATOR, WORKER


@dataclass(frozen=True)
class Variant:
    """How the steps are taken.

    environment: variables that the process starts with. published: by the published loop, else by the engine. dtype: of
    the convolutions; `auto` measures both, as the service does. compiled: from TorchScript files, as in a bundle.
    batched: all faces go through the networks together. graphs: as captured CUDA graphs.
    """

    environment: Mapping[str, str]
    published: bool = False
    dtype: str = "float32"
    compiled: bool = False
    batched: bool = False
    graphs: bool = False

    def supports(self, source: Source, batch: int, device: str) -> bool:
        """Whether this combination exists: the published loop takes one request at a time, on a StyleGAN2 alone."""
        if self.published:
            return batch == 1 and isinstance(source, Synthetic)
        return (batch > 1 or not self.batched) and (device.startswith("cuda") or not self.graphs)

    def dtype_on(self, device: torch.device) -> str:
        """The dtype that the convolutions have there."""
        return str(choose_dtype(self.dtype, device)).removeprefix("torch.")

    def start(self, source: Source, faces: range, device: torch.device) -> "Run":
        """Load the networks and start the optimisation of these faces, all in one batch."""
        if self.published:
            assert isinstance(source, Synthetic)
            return _start_published(source, faces[0], device)
        return _start_engine(self, source, faces, device)


@dataclass(frozen=True)
class Run:
    """A running optimisation. step: takes one step of every face. state: of a face after the last step."""

    step: Callable[[], object]
    state: Callable[[int], Step]


class Faces:
    """An engine of a variant, and faces, known by their numbers, that can join and leave it.

    faces: those that can join. capture: of graphs, for a variant that has them; by default that of CUDA.
    """

    def __init__(
        self,
        variant: Variant,
        source: Source,
        faces: Iterable[int],
        capacity: int,
        device: torch.device,
        capture: Capture | None = None,
    ) -> None:
        networks = source.load()
        with torch.no_grad():
            self._first = {
                face: (networks.voice_encoder(networks.voice(face))[0], networks.first_latent(face)) for face in faces
            }
        self.steps = networks.steps
        self.engine = _engine(variant, networks, capacity, device)
        if variant.graphs:
            self.engine.capture(capture or CudaCapture(device))

    def add(self, face: int, steps: int | None = None) -> None:
        """Add a face with its own voice, first latent and seed. steps: by default the whole schedule."""
        voice, latent = self._first[face]
        self.engine.add(face, [voice], latent, seed=face, steps=steps or self.steps)

    def state(self, face: int) -> Step:
        """Where a face is after its last step."""
        outcome = self.engine.outcome(face)
        noise = [level.float() for level in outcome.noise]
        return Step(outcome.latent.float(), noise, 1 - float(outcome.figures["similarity"][-1]))


def _start_engine(variant: Variant, source: Source, faces: range, device: torch.device) -> Run:
    run = Faces(variant, source, faces, len(faces), device)
    for face in faces:
        run.add(face)
    return Run(run.engine.step, run.state)


def _engine(variant: Variant, networks: Networks, capacity: int, device: torch.device) -> Engine:
    dtype = DTYPES[variant.dtype_on(device)]
    generator = networks.generator.to(device)
    encoder = networks.face_encoder.requires_grad_(False)
    if isinstance(encoder, ResNet):
        encoder = fold_batch_norm(encoder)
    encoder = encoder.to(device)
    if variant.compiled:
        generator = _compiled(generator, device, dtype, GENERATOR_INTERFACE)
        encoder = _compiled(encoder, device, dtype)
    else:
        for module in (generator, encoder):
            adapt_convolutions_(module, dtype)
    return Engine(
        cast(Generator, generator),
        VoiceObjective(
            encoder,
            embedding_dim=networks.embedding_dim,
            image_size=networks.image_size,
        ),
        latent_std=networks.latent_std,
        capacity=capacity,
        max_steps=networks.steps,
        schedule=Schedule(base_lr=networks.learning_rate),
        device=device,
        batched=variant.batched or None,
    )


def _start_published(source: Synthetic, face: int, device: torch.device) -> Run:
    networks = source.load()
    voice_encoder, face_encoder = networks.voice_encoder.to(device), networks.face_encoder.to(device)
    draw = torch.Generator().manual_seed(face)  # the noise that the engine draws from this seed
    shapes = cast(list[list[int]], networks.generator.noise_shapes)
    noise = [torch.randn(1, *shape, generator=draw)[None].to(device) for shape in shapes]
    steps = published_loop(
        source.published_generator().to(device),
        voice_distance(voice_encoder, face_encoder, networks.voice(face).to(device), networks.image_size),
        first_latent=networks.first_latent(face)[None].to(device),
        first_noise=noise,
        latent_noise=torch.randn(networks.steps, 512, generator=draw).to(device),
        latent_std=networks.latent_std,
    )
    last = deque[Step](maxlen=1)
    return Run(lambda: last.append(next(steps)), lambda _: last[0])


def _compiled(module: nn.Module, device: torch.device, dtype: torch.dtype, keep: Sequence[str] = ()) -> nn.Module:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.pt"
        torchscript.save(module, path)
        return torchscript.load(path, device, dtype, keep)


# A CPU on which bfloat16 is slower than float32, simulated: oneDNN may use AVX-512, but not its bfloat16 instructions.
PLAIN_ISA = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}

BASELINE = "published loop"
REFERENCE = "eager"  # of the quality
VARIANTS: Mapping[str, Variant] = {
    BASELINE: Variant({}, published=True),
    "published loop, freed memory kept": Variant(ALLOCATOR, published=True),
    REFERENCE: Variant(WORKER),
    "eager, bfloat16": Variant(WORKER, dtype="bfloat16"),
    "compiled": Variant(WORKER, compiled=True),
    "compiled, bfloat16": Variant(WORKER, dtype="bfloat16", compiled=True),
    "compiled, bfloat16, batched": Variant(WORKER, dtype="bfloat16", compiled=True, batched=True),
    "compiled, auto": Variant(WORKER, dtype=AUTO, compiled=True),
    "compiled, without bfloat16 instructions": Variant(WORKER | PLAIN_ISA, compiled=True),
    "compiled, bfloat16, without its instructions": Variant(WORKER | PLAIN_ISA, dtype="bfloat16", compiled=True),
    "compiled, auto, without bfloat16 instructions": Variant(WORKER | PLAIN_ISA, dtype=AUTO, compiled=True),
    "compiled, CUDA graphs": Variant(WORKER, compiled=True, graphs=True),
    "compiled, bfloat16, CUDA graphs": Variant(WORKER, dtype="bfloat16", compiled=True, graphs=True),
}
