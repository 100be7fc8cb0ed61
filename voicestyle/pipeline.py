"""From audio bytes to a face: the only module that knows every stage.

bytes → waveform → log-mel → voice embedding → prototypes → first latent → latent → image → PNG
"""

import math
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import cast

import torch
from torch import Tensor

from voicestyle.bundle import Bundle
from voicestyle.engine import Engine, Generator, Progress, Schedule
from voicestyle.images import encode_png, to_pixels
from voicestyle.manifest import Manifest
from voicestyle.options import Options, Settings
from voicestyle.voices import Voice, embed_voice

WARM_UP_STEPS = 3  # TorchScript profiles a module's first calls and compiles in the next


@dataclass(frozen=True)
class Face:
    """The answer to a request.

    png: the image's bytes. trace: cos(voice, face) at each step. prototypes: indices, nearest first.
    largest_batch: most requests that shared one of its steps. timings: seconds per stage; `optimise` is wall-clock
    time, shared with the other requests of the batch.
    """

    png: bytes
    trace: list[float]
    seed: int
    steps: int
    size: int
    prototypes: list[int]
    largest_batch: int
    audio_seconds: float
    speech_seconds: float
    timings: dict[str, float]

    @property
    def first_similarity(self) -> float:
        """cos(voice, face) of the first step."""
        return self.trace[0]

    @property
    def similarity(self) -> float:
        """cos(voice, face) of the last step."""
        return self.trace[-1]


@dataclass(frozen=True)
class _Request:
    settings: Settings
    voice: Voice
    prototypes: list[int]
    timings: dict[str, float]
    joined: float


class Pipeline:
    """A bundle at work: requests are submitted, advance together step by step, and are finished one by one.

    Not thread-safe: one thread submits, steps and finishes.
    """

    def __init__(self, bundle: Bundle, *, device: torch.device | str = "cpu", capacity: int = 8) -> None:
        self.manifest: Manifest = bundle.manifest
        self.device = torch.device(device)
        self._bundle = bundle
        self._engine = Engine(
            cast(Generator, bundle.generator),
            bundle.face_encoder,
            latent_std=bundle.manifest.latent_std,
            embedding_dim=bundle.manifest.embedding_dim,
            capacity=capacity,
            max_steps=bundle.manifest.limits.steps,
            image_size=bundle.manifest.image_size,
            encoder_size=bundle.manifest.encoder_size,
            schedule=Schedule(base_lr=bundle.manifest.learning_rate),
            device=device,
        )
        self._requests: dict[str, _Request] = {}

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | str = "cpu", capacity: int = 8) -> "Pipeline":
        """A warm pipeline from a bundle folder. Raises BundleError for a bundle that is not whole."""
        pipeline = cls(Bundle.load(folder, device), device=device, capacity=capacity)
        pipeline.warm_up()
        return pipeline

    @property
    def capacity(self) -> int:
        """Most requests live at once."""
        return self._engine.capacity

    @property
    def live(self) -> int:
        """Requests that were submitted and neither finished nor removed."""
        return len(self._requests)

    def warm_up(self) -> None:
        """Run every compiled module a few times, so that no request pays for it."""
        size = self.manifest.encoder_size
        voice = torch.zeros(1, 1, 64, 800, device=self.device)
        with torch.no_grad():
            for _ in range(WARM_UP_STEPS):
                self._bundle.voice_encoder(voice)
                self._bundle.face_encoder(torch.zeros(1, 3, size, size, device=self.device))
        embedding = torch.ones(self.manifest.embedding_dim)
        latent = torch.from_numpy(self._bundle.latent_bank.latents[0].copy())
        self._engine.add("", embedding, latent, seed=0, steps=WARM_UP_STEPS)
        self._engine.step(WARM_UP_STEPS)
        outcome = self._engine.outcome("")
        with torch.no_grad():
            self._bundle.generator.render(outcome.latent, outcome.noise, self.manifest.default_size)
        self._engine.remove("")

    def submit(self, key: str, audio: bytes | Path, options: Options) -> Settings:
        """Let a request join the batch at its next step; returns its options with the bundle's defaults.

        Raises:
            CallerError: audio or options that cannot be used; nothing is left behind.
            ValueError: a key that is already live.
            RuntimeError: the batch is full.
        """
        settings = self.manifest.resolve(options)
        voice = embed_voice(audio, self._bundle.voice_encoder, self.manifest.limits, self.device)
        start = perf_counter()
        prototypes = self._bundle.nearest_prototypes(voice.embedding.numpy())
        first = self._first_latent(voice, prototypes)
        joined = perf_counter()
        self._engine.add(key, voice.embedding, first, seed=settings.seed, steps=settings.steps)
        timings = {**voice.timings, "first_latent": joined - start}
        self._requests[key] = _Request(settings, voice, prototypes, timings, joined)
        return settings

    def _first_latent(self, voice: Voice, prototypes: list[int]) -> Tensor:
        bank, instances, embedding = self._bundle.latent_bank, self.manifest.instances, voice.embedding.numpy()
        if self.manifest.instance_choice == "first":
            return torch.from_numpy(bank.mean(bank.first_rows(prototypes, instances)))
        rows = bank.nearest_rows(prototypes, instances, embedding)
        weights = bank.weights(rows, embedding) if self.manifest.instance_choice == "weighted" else None
        return torch.from_numpy(bank.mean(rows, weights))

    def step(self, count: int = 1) -> None:
        """Take `count` optimisation steps with every live request."""
        self._engine.step(count)

    def progress(self) -> dict[str, Progress]:
        """Where each request stands, with one read from the device."""
        return {str(key): progress for key, progress in self._engine.progress().items()}

    def finish(self, key: str) -> Face:
        """Render a request as far as it has come, and let it leave. Raises KeyError for an unknown key."""
        request = self._requests[key]
        settings, timings = request.settings, dict(request.timings)
        outcome = self._engine.outcome(key)
        trace = outcome.similarity.tolist() or [math.nan]
        timings["optimise"] = perf_counter() - request.joined

        start = perf_counter()
        with torch.no_grad():
            image = self._bundle.generator.render(outcome.latent, outcome.noise, settings.size)
        pixels = to_pixels(image[0])
        timings["render"] = perf_counter() - start

        start = perf_counter()
        description = {
            "Model": f"{self.manifest.name} {self.manifest.version}",
            "Similarity": f"{trace[-1]:.4f}",
            "Seed": str(settings.seed),
            "Steps": str(settings.steps),
        }
        png = encode_png(pixels, description)
        timings["png"] = perf_counter() - start
        self.remove(key)
        return Face(
            png=png,
            trace=trace,
            seed=settings.seed,
            steps=settings.steps,
            size=settings.size,
            prototypes=request.prototypes,
            largest_batch=outcome.largest_batch,
            audio_seconds=request.voice.audio_seconds,
            speech_seconds=request.voice.speech_seconds,
            timings=timings,
        )

    def remove(self, key: str) -> None:
        """Forget a request. Raises KeyError for an unknown key."""
        del self._requests[key]
        self._engine.remove(key)
