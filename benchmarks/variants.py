"""The ways of taking a step that are compared. A new one is one more line of `VARIANTS`."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from benchmarks.published_loop import PublishedLoop
from benchmarks.subjects import Networks, StandIn, Subject
from cmpc2.resnet import fold_batch_norm
from voicestyle import torchscript
from voicestyle.bundle import GENERATOR_INTERFACE
from voicestyle.engine import CudaCapture, Engine, Generator, Schedule
from voicestyle.precision import DTYPES, adapt_convolutions_
from voicestyle.serving.server import ALLOCATOR, WORKER


@dataclass(frozen=True)
class Face:
    """What came out for one face: w [1, 512], noise maps [1, 1, R, R], and cos(voice, face) of the last step."""

    latent: Tensor
    noise: list[Tensor]
    similarity: float


class Run(Protocol):
    """Faces 0 … batch − 1 on their way."""

    def step(self) -> None:
        """One step of every face."""
        ...

    def face(self, number: int) -> Face:
        """What a face came to, on the CPU."""
        ...


class Variant(Protocol):
    """A way of taking steps."""

    @property
    def dtype(self) -> str:
        """What the networks compute in."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that its process starts with."""
        ...

    def takes(self, subject: Subject, batch: int, device: torch.device) -> bool:
        """Whether there is something to measure."""
        ...

    def start(self, subject: Subject, faces: range, device: torch.device) -> Run:
        """Load the networks and begin the optimisation of these faces in one batch."""
        ...


@dataclass(frozen=True)
class OnEngine:
    """Our engine. dtype: of the convolutions. compiled: by way of a bundle's files. graphs: captured CUDA graphs.
    options: more of `Engine`.
    """

    dtype: str = "float32"
    compiled: bool = False
    graphs: bool = False
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    environment: Mapping[str, str] = field(default_factory=lambda: WORKER)

    def takes(self, subject: Subject, batch: int, device: torch.device) -> bool:
        """Everything; together with others only where there are others, graphs only where there is CUDA."""
        possible = device.type == "cuda" or not self.graphs
        return possible and (batch > 1 or not self.options.get("together"))

    def start(self, subject: Subject, faces: range, device: torch.device) -> Run:
        """An engine of just this capacity."""
        return _EngineRun(self, subject.networks(), faces, device)


class _EngineRun:
    def __init__(self, variant: OnEngine, networks: Networks, faces: range, device: torch.device) -> None:
        latents = [networks.first_latent(face) for face in faces]
        generator = networks.generator.to(device)
        encoder = fold_batch_norm(networks.encoders.requires_grad_(False).face_subnet).to(device)
        if variant.compiled:
            generator = _through_file(generator, device, DTYPES[variant.dtype], GENERATOR_INTERFACE)
            encoder = _through_file(encoder, device, DTYPES[variant.dtype])
        else:
            for module in (generator, encoder):
                adapt_convolutions_(module, DTYPES[variant.dtype])
        self._engine = Engine(
            cast(Generator, generator),
            encoder,
            latent_std=networks.latent_std,
            embedding_dim=networks.embedding_dim,
            capacity=len(faces),
            max_steps=networks.steps,
            image_size=networks.image_size,
            schedule=Schedule(base_lr=networks.learning_rate),
            device=device,
            **variant.options,  # pyright: ignore[reportArgumentType]
        )
        if variant.graphs:
            self._engine.capture(CudaCapture(device))
        for face, latent in zip(faces, latents, strict=True):
            with torch.no_grad():
                voice = networks.encoders.encode_voice(networks.voice(face))[0]
            self._engine.add(face, voice, latent, seed=face, steps=networks.steps)

    def step(self) -> None:
        self._engine.step()

    def face(self, number: int) -> Face:
        outcome = self._engine.outcome(number)
        noise = [level.float().cpu() for level in outcome.noise]
        return Face(outcome.latent.float().cpu(), noise, float(outcome.similarity[-1]))


def _through_file(
    module: nn.Module, device: torch.device, dtype: torch.dtype, keep: Sequence[str] = ()
) -> torchscript.CompiledModule:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.pt"
        torchscript.save(module, path)
        return torchscript.load(path, device, dtype, keep)


@dataclass(frozen=True)
class Published:
    """The published loop, which takes one request at a time; only the stand-ins have networks of its form."""

    dtype: str = "float32"
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    def takes(self, subject: Subject, batch: int, device: torch.device) -> bool:
        """Single faces of a StyleGAN2."""
        return batch == 1 and isinstance(subject, StandIn)

    def start(self, subject: Subject, faces: range, device: torch.device) -> Run:
        """The same noise as the engine draws from the face's seed."""
        assert isinstance(subject, StandIn), "the published loop takes a StyleGAN2"
        assert len(faces) == 1, "the published loop takes one face"
        return _PublishedRun(subject, faces[0], device)


class _PublishedRun:
    def __init__(self, subject: StandIn, face: int, device: torch.device) -> None:
        networks = subject.networks()
        source = torch.Generator().manual_seed(face)
        shapes = cast(list[list[int]], networks.generator.noise_shapes)
        noise = [torch.randn(1, *shape, generator=source)[None].to(device) for shape in shapes]
        self._loop = PublishedLoop(
            subject.published_generator().to(device),
            networks.encoders.to(device),
            log_mel=networks.voice(face).to(device),
            first_latent=networks.first_latent(face)[None].to(device),
            noise=noise,
            latent_noise=torch.randn(networks.steps, 512, generator=source).to(device),
            latent_std=networks.latent_std,
            image_size=networks.image_size,
        )

    def step(self) -> None:
        self._loop.step()

    def face(self, number: int) -> Face:
        noise = [level.detach().cpu() for level in self._loop.noise]
        return Face(self._loop.latent.detach().cpu(), noise, self._loop.similarity[-1])


def computation(variant: OnEngine | Published) -> str:
    """What a variant computes, the same for those that differ in their environment alone."""
    return repr(replace(variant, environment={}))


TOGETHER = {"together": True}

BASELINE = "published loop"
REFERENCE = "eager"  # of quality
VARIANTS: Mapping[str, OnEngine | Published] = {
    BASELINE: Published(),
    "published loop, freed tensors kept": Published(environment=ALLOCATOR),
    REFERENCE: OnEngine(),
    "eager, bfloat16": OnEngine("bfloat16"),
    "compiled": OnEngine(compiled=True),
    "compiled, bfloat16": OnEngine("bfloat16", compiled=True),
    "compiled, bfloat16, together": OnEngine("bfloat16", compiled=True, options=TOGETHER),
    "compiled, bfloat16, CUDA graphs": OnEngine("bfloat16", compiled=True, graphs=True),
}
