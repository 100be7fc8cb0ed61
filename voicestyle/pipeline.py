"""From audio bytes to a face: the only module that knows every stage.

bytes → waveform → log-mel → voice embedding → prototypes → first latent → latent → image → PNG
"""

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import cast

import torch
from torch import Tensor

from voicestyle.bundle import Bundle
from voicestyle.engine import CudaCapture, Engine, Generator, Outcome, Progress, Schedule, encoder_input
from voicestyle.face import Face, Preview, Rendered
from voicestyle.images import encode, to_pixels
from voicestyle.manifest import Caps, Manifest
from voicestyle.options import Options, Settings
from voicestyle.presets import PRESETS
from voicestyle.voices import Voice, embed_voice

log = logging.getLogger("voicestyle.pipeline")

NO_CAPS = Caps()
WARM_UP_STEPS = 3  # TorchScript profiles a module's first calls and compiles in the next


@dataclass(frozen=True)
class Prepared:
    """A request that has been heard and waits for a place in the batch."""

    settings: Settings
    voice: Voice
    prototypes: list[int]
    first_latent: Tensor
    timings: dict[str, float]
    since: float


@dataclass(frozen=True)
class _Request:
    prepared: Prepared
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
            device=device,
        )
        self._requests: dict[str, _Request] = {}

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        capacity: int = 8,
        caps: Caps = NO_CAPS,
        dtype: torch.dtype = torch.float32,
    ) -> "Pipeline":
        """A warm pipeline from a bundle folder, with a service's `caps` on what a request may cost.

        The generator and the face encoder compute in `dtype`; `voicestyle.precision.choose_dtype` knows a device's.

        Raises BundleError for a bundle that is not whole, or makes no face within the caps.
        """
        bundle = Bundle.load(folder, device, dtype)
        bundle = replace(bundle, manifest=bundle.manifest.capped(caps))
        pipeline = cls(bundle, device=device, capacity=capacity)
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
        """Run every compiled module a few times, so that no request pays for it; on a GPU, capture the step."""
        voice = torch.zeros(1, 1, 64, 800, device=self.device)
        with torch.no_grad():
            for _ in range(WARM_UP_STEPS):
                self._bundle.voice_encoder(voice)
        if self.device.type == "cuda":
            self._capture()
        embedding = torch.ones(self.manifest.embedding_dim)
        latent = torch.from_numpy(self._bundle.latent_bank.latents[0].copy())
        self._engine.add("", embedding, latent, seed=0, steps=WARM_UP_STEPS)
        self._engine.step(WARM_UP_STEPS)
        outcome = self._engine.outcome("")
        with torch.no_grad():
            for _ in range(WARM_UP_STEPS):
                self._bundle.generator(outcome.latent, outcome.noise)
                self._bundle.generator.render(outcome.latent, outcome.noise, self.manifest.default_size)
        self._engine.remove("")

    def _capture(self) -> None:
        try:
            self._engine.capture(CudaCapture(self.device))
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning("the step cannot be captured as a CUDA graph, so each kernel is launched: %s", error)

    def submit(self, key: str, audio: bytes | Path, options: Options) -> Settings:
        """Let a request join the batch at its next step; returns its options with the bundle's defaults.

        Raises what `prepare` and `join` raise.
        """
        prepared = self.prepare(audio, options)
        self.join(key, prepared)
        return prepared.settings

    def prepare(self, audio: bytes | Path, options: Options) -> Prepared:
        """All stages before the optimisation; nothing is kept.

        Raises:
            InputError: audio or options that cannot be used.
        """
        settings = self.manifest.resolve(options)
        voice = embed_voice(audio, self._bundle.voice_encoder, self.manifest.limits, self.device)
        start = perf_counter()
        prototypes = self._bundle.nearest_prototypes(voice.embedding.numpy())
        first = self._first_latent(voice, prototypes)
        since = perf_counter()
        return Prepared(settings, voice, prototypes, first, {**voice.timings, "first_latent": since - start}, since)

    def join(self, key: str, prepared: Prepared) -> None:
        """Let a prepared request join the batch at its next step.

        Raises:
            ValueError: a key that is already live.
            RuntimeError: the batch is full.
        """
        settings = prepared.settings
        self._engine.add(
            key,
            prepared.voice.embedding,
            prepared.first_latent,
            seed=settings.seed,
            steps=settings.steps,
            schedule=Schedule.of(PRESETS[settings.preset], self.manifest.learning_rate),
        )
        joined = perf_counter()
        prepared.timings["queue"] = joined - prepared.since
        self._requests[key] = _Request(prepared, joined)

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

    def advance(self) -> None:
        """Take one step: with all requests where they go together, else with the one whose turn it is."""
        self._engine.advance()

    @property
    def together(self) -> bool:
        """Whether the requests of the batch go through the networks together, as on a GPU, or one by one."""
        return self._engine.together

    def progress(self) -> dict[str, Progress]:
        """Where each request stands, with one read from the device."""
        return {str(key): progress for key, progress in self._engine.progress().items()}

    def preview(self, key: str) -> Preview:
        """A request's face as far as it has come, at the size of the optimisation. Raises KeyError."""
        settings, outcome = self._requests[key].prepared.settings, self._engine.outcome(key)
        size = self.manifest.image_size
        with torch.no_grad():
            image = self._bundle.generator(outcome.latent, outcome.noise)
        pixels = to_pixels(encoder_input(image, size, size)[0])
        return Preview(encode(pixels, "jpeg", self._description(settings, _trace(outcome)[-1])), size)

    def finish(self, key: str) -> Face:
        """Render and encode a request as far as it has come, and let it leave. Raises KeyError for an unknown key."""
        return self.render(key).encoded()

    def render(self, key: str) -> Rendered:
        """Render a request as far as it has come, and let it leave. Raises KeyError for an unknown key."""
        request = self._requests[key]
        prepared, settings = request.prepared, request.prepared.settings
        outcome = self._engine.outcome(key)
        trace = _trace(outcome)
        began = perf_counter()
        with torch.no_grad():
            pixels = to_pixels(self._bundle.generator.render(outcome.latent, outcome.noise, settings.size)[0])
        timings = prepared.timings | {"optimise": began - request.joined, "render": perf_counter() - began}
        self.remove(key)
        face = Face(
            image=b"",
            format=settings.format,
            trace=trace,
            seed=settings.seed,
            steps=settings.steps,
            preset=settings.preset,
            size=settings.size,
            prototypes=prepared.prototypes,
            largest_batch=outcome.largest_batch,
            audio_seconds=prepared.voice.audio_seconds,
            speech_seconds=prepared.voice.speech_seconds,
            timings=timings,
        )
        return Rendered(pixels, face, self._description(settings, trace[-1]))

    def _description(self, settings: Settings, similarity: float) -> dict[str, str]:
        return {
            "Model": f"{self.manifest.name} {self.manifest.version}",
            "Similarity": f"{similarity:.4f}",
            "Seed": str(settings.seed),
            "Steps": str(settings.steps),
            "Preset": settings.preset,
        }

    def remove(self, key: str) -> None:
        """Forget a request. Raises KeyError for an unknown key."""
        del self._requests[key]
        self._engine.remove(key)


def _trace(outcome: Outcome) -> list[float]:
    return outcome.similarity.tolist() or [math.nan]
