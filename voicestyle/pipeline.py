"""From audio bytes to a face: the only module that knows every stage.

bytes → waveform → log-mel → voice embedding → prototypes → first latent → latent → image → PNG

The latent is the result of the optimisation; with the preset `instant`, the mapper comes before it or in its place.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Self, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voicestyle.bundle import Bundle
from voicestyle.devices import device_failed, is_out_of_memory, retry_out_of_memory
from voicestyle.engine import (
    CPU_CAPACITY,
    Choice,
    CudaCapture,
    Engine,
    Generator,
    Meter,
    Outcome,
    Schedule,
    VoiceObjective,
    encoder_input,
    measure_capacity,
    meter_of,
)
from voicestyle.face import Preview, Rendered
from voicestyle.images import encode, to_pixels
from voicestyle.manifest import Caps, Manifest
from voicestyle.network_checks import TONE_SECONDS, tone
from voicestyle.one_pass import OnePass
from voicestyle.options import Options, Settings
from voicestyle.presets import PRESETS
from voicestyle.scheduling import Phase, Request
from voicestyle.voices import FULL_SCALE, Voice, embed_voice, voice_features

log = logging.getLogger("voicestyle.pipeline")

NO_CAPS = Caps()
WARM_UP_RUNS = 3  # TorchScript profiles the first call of a module and compiles in the next two
WARM_UP_MARGIN = 2  # more runs where a graph is captured, which must not contain the work of a compiler
# Seconds of speech after that. The first call of a compiled module with another length takes longer than the next ones.
WARM_UP_SPEECH = (10.0, 13.0)
WARM_UP_SPEECH_GPU = (5.0, 10.0, 13.0, 30.0, 60.0)  # and the longest audio, which reserves the memory

Graphs: TypeAlias = Literal["on", "off", "failed"]  # failed: off, because an earlier process failed to capture them


@dataclass(frozen=True)
class Progress:
    """The progress of one request. `similarity` is cos(voice, face) of its last step, NaN before the first."""

    step: int
    steps: int
    similarity: float


@dataclass(frozen=True)
class Computing:
    """How a pipeline computes, for the log, `/ready`, the metrics and the responses.

    batching: "batched" or "sequential". graphs: whether a step is one CUDA graph; off on a CPU. step_seconds: of a step
    by batch size, as it was measured to choose the capacity; empty if that was given.
    """

    device: str
    dtype: str
    batching: str
    graphs: Graphs
    capacity: int
    step_seconds: Mapping[int, float]


@dataclass(frozen=True)
class Prepared:
    """What a request needs for the optimisation. first_latent: [D], or [L, D] for w+. timings: seconds per stage."""

    settings: Settings
    voice: Voice
    prototypes: list[int]
    first_latent: Tensor
    timings: dict[str, float]


@dataclass(eq=False, kw_only=True)
class FaceRequest(Request):
    """The record of a request whose face the pipeline makes."""

    prepared: Prepared
    outcome: Outcome | None = None  # once it has taken all of its steps; without steps, from its start

    @classmethod
    def of(cls, key: str, prepared: Prepared, **more: Any) -> Self:
        """The record of a request that was just prepared. more: the fields of a subclass."""
        settings = prepared.settings
        return cls(id=key, steps=settings.steps, previews=settings.previews, prepared=prepared, **more)


class Pipeline:
    """A loaded bundle: prepares requests, steps them in one batch, and renders their faces.

    `voicestyle.scheduling.Scheduler` decides which requests are started, stepped and rendered, and when. Not
    thread-safe: one thread calls everything.

    batched: whether a call of a network takes all requests or one; by default the engine's choice for the device.
    graphs: whether `capture` captures the step of a GPU; failed is off, and only `computing` tells them apart.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: torch.device | str = "cpu",
        capacity: int = 8,
        batched: bool | None = None,
        graphs: Graphs = "on",
    ) -> None:
        self.manifest: Manifest = bundle.manifest
        self.device = torch.device(device)
        self._bundle = bundle
        self._graphs: Graphs = graphs
        self._warm_up_runs = WARM_UP_RUNS + (0 if self.device.type == "cpu" else WARM_UP_MARGIN)
        objective = VoiceObjective(
            bundle.face_encoder,
            embedding_dim=bundle.manifest.embedding_dim,
            image_size=bundle.manifest.image_size,
            encoder_size=bundle.manifest.encoder_size,
        )
        self._engine = Engine(
            cast(Generator, bundle.generator),
            objective,
            latent_std=bundle.manifest.latent_std,
            latent_rows=bundle.manifest.latent_rows,
            capacity=capacity,
            max_steps=max(bundle.manifest.limits.steps, self._warm_up_runs),
            prior=bundle.latent_prior,
            device=device,
            batched=batched,
        )
        self._step_seconds: Mapping[int, float] = {}
        self._prior = self._prior_arguments()
        self._one_pass = OnePass(bundle, objective, device=self.device, batched=self._engine.batched)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        capacity: int | None = CPU_CAPACITY,
        iteration_seconds: float = 0.15,
        caps: Caps = NO_CAPS,
        dtype: torch.dtype = torch.float32,
        batched: bool | None = None,
        graphs: Graphs = "on",
        meter: Meter | None = None,
    ) -> "Pipeline":
        """Load a bundle folder, warm it up, and on a GPU capture its step.

        caps: the service's own limits for a request. The generator and the face encoder compute in `dtype`; see
        `voicestyle.precision.choose_dtype`.

        capacity: slots in the batch. None chooses: where a step takes all requests at once, as many as a step of
        `iteration_seconds` and the memory allow, by trials; otherwise 8. meter: of the device, for the trials; by
        default that of a GPU, and none on a CPU, where nothing is measured.

        Raises:
            BundleError: a bundle that is incomplete or altered, or has no image size within the caps.
            CaptureError: a step that cannot be captured. A new process with other `graphs` can load the bundle.
            RuntimeError: too little memory for one request.
        """
        bundle = Bundle.load(folder, device, dtype)
        bundle = replace(bundle, manifest=bundle.manifest.capped(caps))

        def with_slots(slots: int) -> Pipeline:
            return cls(bundle, device=device, capacity=slots, batched=batched, graphs=graphs)

        if capacity is None:
            choice = cls._choose_capacity(with_slots, meter or meter_of(torch.device(device)), iteration_seconds)
            log.info("%s", choice.as_text())
            pipeline = with_slots(choice.capacity)
            pipeline._step_seconds = choice.step_seconds
        else:
            pipeline = with_slots(capacity)
        pipeline.warm_up()
        pipeline.capture()
        return pipeline

    @staticmethod
    def _choose_capacity(
        with_slots: "Callable[[int], Pipeline]", meter: Meter | None, iteration_seconds: float
    ) -> Choice:
        alone = with_slots(1)
        if meter is None or not alone.batched:
            # Where a step is that of one request, it takes as long whatever the number of slots.
            return Choice(CPU_CAPACITY, {}, "as on every CPU and wherever requests are stepped one after the other")
        alone.warm_up()
        return measure_capacity(
            lambda size: with_slots(size)._full_engine(), alone._run_largest, meter, iteration_seconds
        )

    def _full_engine(self) -> Engine:
        """The engine as requests find it, full of items with the most steps."""
        # The runs before the capture of the next smaller size need memory beside that of the largest graph.
        self.capture(sorted({max(1, self.capacity // 2), self.capacity}))
        embedding, latent = self._example()
        for number in range(self.capacity):
            self._engine.add(number, [embedding], latent, seed=number, steps=self._engine.max_steps, **self._prior)
        return self._engine

    def _run_largest(self) -> None:
        """Embed the longest voice and render the largest image, which need the most memory outside of the steps."""
        self._embed_tone(self.manifest.limits.audio_seconds)
        _, latent = self._example()
        self._one_pass.render([self._one_pass.outcome(latent, seed=0)], [max(self.manifest.sizes)])

    def _example(self) -> tuple[Tensor, Tensor]:
        """A voice embedding [E], and a first latent [D] or [L, D]."""
        latents = self._bundle.latent_bank.latents
        return torch.ones(self.manifest.embedding_dim), torch.from_numpy(latents[0].copy())

    def _embed_tone(self, seconds: float) -> None:
        speech = (tone(min(seconds, self.manifest.limits.audio_seconds)) * FULL_SCALE).short().numpy()
        features = voice_features(speech, self._bundle.front_end, self.device)
        with torch.inference_mode():
            self._bundle.voice_encoder(features[None].to(self.device))

    @property
    def computing(self) -> Computing:
        """How this pipeline computes."""
        return Computing(
            device=str(self.device),
            dtype=self.dtype,
            batching="batched" if self.batched else "sequential",
            graphs="on" if self._engine.captured else "failed" if self._graphs == "failed" else "off",
            capacity=self.capacity,
            step_seconds=self._step_seconds,
        )

    @property
    def dtype(self) -> str:
        """The dtype of the networks' convolutions, "float32" or "bfloat16"."""
        return str(self._bundle.dtype).removeprefix("torch.")

    @property
    def capacity(self) -> int:
        """Slots in the batch."""
        return self._engine.capacity

    @property
    def batched(self) -> bool:
        """Whether a step takes all requests through the networks at once, as on a GPU, or one after the other."""
        return self._engine.batched

    def warm_up(self) -> None:
        """Run every compiled module a few times, so that no request pays for it, and a GPU's memory is reserved."""
        self._warm_up_voice()
        embedding, latent = self._example()
        self._engine.add("", [embedding], latent, seed=0, steps=self._warm_up_runs, **self._prior)
        for _ in range(self._warm_up_runs):
            self._engine.step()
        outcome = self._engine.outcome("")
        with torch.no_grad():
            for _ in range(self._warm_up_runs):
                self._bundle.generator(outcome.latent, outcome.noise)
                self._bundle.generator.render(outcome.latent, outcome.noise, self.manifest.default_size)
        self._engine.remove("")
        if self.manifest.mapper:
            for _ in range(self._warm_up_runs):
                (mapped,) = self._one_pass.map_latents([embedding], [latent])
                self._one_pass.measure([self._one_pass.outcome(mapped, seed=0)], [embedding])

    def _warm_up_voice(self) -> None:
        longer = WARM_UP_SPEECH if self.device.type == "cpu" else (*WARM_UP_SPEECH_GPU, math.inf)
        for seconds in (*[TONE_SECONDS] * self._warm_up_runs, *longer):
            self._embed_tone(seconds)

    def capture(self, sizes: Sequence[int] | None = None) -> None:
        """On a GPU, capture the step as CUDA graphs, unless `graphs` says otherwise. Raises CaptureError.

        sizes: the batch sizes; by default all.
        """
        if self._graphs == "on" and self.device.type == "cuda":
            self._engine.capture(CudaCapture(self.device), sizes)

    @retry_out_of_memory
    def prepare(self, audio: bytes | Path, options: Options) -> Prepared:
        """Run all stages before the optimisation; nothing is kept.

        Raises:
            InputError: audio or options that cannot be used.
        """
        settings = self.manifest.resolve(options)
        bundle = self._bundle
        voice = embed_voice(audio, bundle.voice_encoder, self.manifest.limits, self.device, bundle.front_end)
        start = perf_counter()
        prototypes = bundle.nearest_prototypes(voice.embedding.numpy())
        first_latent = self._first_latent(voice.embedding, prototypes)
        timings = {**voice.timings, "first_latent": perf_counter() - start}
        return Prepared(settings, voice, prototypes, first_latent, timings)

    def first_latent(self, embedding: Tensor) -> Tensor:
        """The first latent [D], or [L, D] for w+, of a voice embedding [E], as in `prepare`."""
        return self._first_latent(embedding, self._bundle.nearest_prototypes(embedding.numpy()))

    def _first_latent(self, voice: Tensor, prototypes: list[int]) -> Tensor:
        bank, instances, embedding = self._bundle.latent_bank, self.manifest.instances, voice.numpy()
        if self._bundle.latent_map is not None:
            cosines = self._bundle.prototypes.cosines(embedding, prototypes)
            return torch.from_numpy(self._bundle.latent_map(embedding, prototypes, cosines))
        if self.manifest.instance_choice == "first":
            return torch.from_numpy(bank.mean(bank.first_rows(prototypes, instances)))
        rows = bank.nearest_rows(prototypes, instances, embedding)
        weights = bank.weights(rows, embedding) if self.manifest.instance_choice == "weighted" else None
        return torch.from_numpy(bank.mean(rows, weights))

    def _prior_arguments(self) -> dict[str, Any]:
        """What `Engine.add` takes for the manifest's prior; nothing without one."""
        prior, latent_prior = self.manifest.prior, self._bundle.latent_prior
        if prior is None or latent_prior is None:
            return {}
        # None is the first latent of each item.
        centre = torch.from_numpy(latent_prior.mean) if prior.centre == "bank" else None
        return {"prior_weight": prior.weight, "prior_centre": centre, "hold": prior.hold}

    def first_similarity(self, prepared: Prepared) -> float:
        """cos(voice, face) of the first latent, without the noise that the first step of an optimisation adds."""
        start = self._one_pass.outcome(prepared.first_latent, prepared.settings.seed)
        return _last(self._one_pass.measure([start], [prepared.voice.embedding])[0])

    def start(self, requests: Sequence[FaceRequest]) -> None:
        """Add requests to the batch; those without steps stay outside, and can be rendered now.

        The mapper gives the latents of those whose preset asks for it, where `batched` all in one call.

        Raises:
            ValueError: an id that is already in the batch.
            RuntimeError: the batch is full.
        """
        mapped = [request for request in requests if PRESETS[request.prepared.settings.preset].from_mapper]
        latents = {request.id: request.prepared.first_latent for request in requests}
        embeddings = [request.prepared.voice.embedding for request in mapped]
        found = self._one_pass.map_latents(embeddings, [latents[request.id] for request in mapped])
        latents |= zip((request.id for request in mapped), found, strict=True)
        for request in requests:
            settings = request.prepared.settings
            if settings.steps:
                self._engine.add(
                    request.id,
                    [request.prepared.voice.embedding],
                    latents[request.id],
                    seed=settings.seed,
                    steps=settings.steps,
                    schedule=Schedule.of(PRESETS[settings.preset], self.manifest.learning_rate),
                    **self._prior,
                )
            else:
                request.outcome = self._one_pass.outcome(latents[request.id], settings.seed)

    def step(self, requests: Iterable[FaceRequest]) -> None:
        """Take one optimisation step with each of `requests`; where `batched`, these must be all of the batch.

        Requests that have taken all of their steps leave the batch, and their record gets the outcome.
        """
        by_id = {request.id: request for request in requests}
        for key in self._engine.step(by_id):
            by_id[str(key)].outcome = self._engine.outcome(key)
            self._engine.remove(key)

    def progress(self, requests: Iterable[FaceRequest]) -> dict[str, Progress]:
        """The progress of each request by id, with one read from the device."""
        running = self._engine.progress()
        progress: dict[str, Progress] = {}
        for request in requests:
            if request.outcome is None:
                at = running[request.id]
                progress[request.id] = Progress(at.step, at.steps, at.figures["similarity"])
            else:
                progress[request.id] = Progress(request.steps, request.steps, _last(request.outcome))
        return progress

    @retry_out_of_memory
    def preview(self, request: FaceRequest) -> Preview:
        """Render a running request as it is now, at the size of the optimisation. Raises KeyError for another."""
        outcome, size = self._engine.outcome(request.id), self.manifest.image_size
        with torch.no_grad():
            image = self._bundle.generator(outcome.latent, outcome.noise)
        pixels = to_pixels(encoder_input(image, size, size)[0])
        description = self._description(request.prepared.settings, _last(outcome))
        return Preview(encode(pixels, "jpeg", description), size)

    def render(self, request: FaceRequest) -> Rendered:
        """Render a request that has no steps left. Raises ValueError for another."""
        return self.render_all([request])[0]

    def render_all(self, requests: Sequence[FaceRequest]) -> list[Rendered]:
        """Render requests that have no steps left; where `batched`, those of equal size in one call.

        Without steps, the similarity of a face is measured first. Raises ValueError for a request that has steps left.
        """
        outcomes: dict[str, Outcome] = {}
        for request in requests:
            if request.outcome is None:
                raise ValueError(f"request {request.id!r} has steps left")
            outcomes[request.id] = request.outcome
        began = perf_counter()
        without = {request.id: request.prepared.voice.embedding for request in requests if not request.steps}
        measured = self._one_pass.measure([outcomes[key] for key in without], list(without.values()))
        outcomes |= zip(without, measured, strict=True)
        now = perf_counter()
        sizes = [request.prepared.settings.size for request in requests]
        images = self._one_pass.render([outcomes[request.id] for request in requests], sizes)
        timings = {"measure": now - began, "render": perf_counter() - now}
        for request in requests:
            request.outcome = None  # its tensors are on the device
        return [
            self._rendered(request, outcomes[request.id], pixels, timings)
            for request, pixels in zip(requests, images, strict=True)
        ]

    def _rendered(
        self, request: FaceRequest, outcome: Outcome, pixels: NDArray[np.uint8], timings: Mapping[str, float]
    ) -> Rendered:
        prepared, trace = request.prepared, outcome.figures["similarity"].tolist()
        if request.steps:
            queue = request.seconds_between(Phase.WAITING, Phase.RUNNING)
            stages = {"queue": queue, "optimise": request.seconds_between(Phase.RUNNING, Phase.ENCODING)}
        else:
            stages = {"queue": request.seconds_between(Phase.WAITING, Phase.ENCODING), "measure": timings["measure"]}
        return Rendered(
            pixels=pixels,
            description=self._description(prepared.settings, trace[-1]),
            settings=prepared.settings,
            trace=trace,
            prototypes=prepared.prototypes,
            largest_batch=request.largest_batch,
            dtype=self.dtype,
            audio_seconds=prepared.voice.audio_seconds,
            speech_seconds=prepared.voice.speech_seconds,
            timings={**prepared.timings, **stages, "render": timings["render"]},
        )

    def remove(self, request: FaceRequest) -> None:
        """Remove a running request from the batch. Raises KeyError for another."""
        self._engine.remove(request.id)

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether an error that a method raised is that the device has too little free memory."""
        return is_out_of_memory(error)

    def device_failed(self, error: Exception) -> bool:
        """Whether an error that a method raised means that every later call would fail too."""
        return device_failed(error, self.device)

    def _description(self, settings: Settings, similarity: float) -> dict[str, str]:
        return {
            "Model": f"{self.manifest.name} {self.manifest.version}",
            "Similarity": f"{similarity:.4f}",
            "Seed": str(settings.seed),
            "Steps": str(settings.steps),
            "Preset": settings.preset,
            "Dtype": self.dtype,
        }


def _last(outcome: Outcome) -> float:
    return float(outcome.figures["similarity"][-1])
