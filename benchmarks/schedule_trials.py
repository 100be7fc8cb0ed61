"""Voices optimised under any schedule: how their similarity goes, and what the faces on the way look like."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import cast

import torch
import torch.nn.functional as F

from voicestyle.bundle import Bundle
from voicestyle.engine import Engine, Generator, Outcome, Schedule, encoder_input
from voicestyle.images import encode, to_pixels
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline, Prepared

SIZE = 256  # pixels of the faces that are judged
KEY = "voice"


@dataclass(frozen=True)
class Trial:
    """One voice's optimisation.

    curve: cos(voice, face) after S steps, S = 0 … steps; of faces with noise on w where the schedule adds some, but
    never the last, which is that of the answer. faces: PNGs by the step after which they were taken.
    """

    curve: list[float]
    faces: Mapping[int, bytes]
    step_milliseconds: list[float]


class Trials:
    """Voices and a bundle that optimises them one by one.

    Raises BundleError for a folder that is no bundle, InputError for a voice that cannot be used.
    """

    def __init__(self, folder: Path, voices: Sequence[Path], max_steps: int) -> None:
        self._bundle = Bundle.load(folder)
        self.manifest = self._bundle.manifest
        pipeline = Pipeline(self._bundle, capacity=1)
        pipeline.warm_up()
        self._voices: list[Prepared] = [pipeline.prepare(voice, Options()) for voice in voices]
        self._engine = Engine(
            cast(Generator, self._bundle.generator),
            self._bundle.face_encoder,
            latent_std=self.manifest.latent_std,
            embedding_dim=self.manifest.embedding_dim,
            capacity=1,
            max_steps=max_steps,
            image_size=self.manifest.image_size,
            encoder_size=self.manifest.encoder_size,
        )

    def __len__(self) -> int:
        return len(self._voices)

    def run(self, voice: int, schedule: Schedule, steps: int, shown: Collection[int]) -> Trial:
        """The trial of a voice, by its number, with the faces after the `shown` steps."""
        prepared, engine = self._voices[voice], self._engine
        seed, embedding = prepared.settings.seed, prepared.voice.embedding
        engine.add(KEY, embedding, prepared.first_latent, seed=seed, steps=steps, schedule=schedule)
        faces: dict[int, bytes] = {}
        times: list[float] = []
        for step in range(steps + 1):
            if step in shown:
                faces[step] = self._face(engine.outcome(KEY))
            if step < steps:
                began = perf_counter()
                engine.step()
                times.append(1e3 * (perf_counter() - began))
        outcome = engine.outcome(KEY)
        engine.remove(KEY)
        with torch.no_grad():
            image = self._bundle.generator(outcome.latent, outcome.noise)
            seen = self._bundle.face_encoder(encoder_input(image, self.manifest.image_size, self.manifest.encoder_size))
        last = F.cosine_similarity(seen, embedding[None]).item()
        return Trial([*outcome.similarity.tolist(), last], faces, times)

    @torch.no_grad()
    def _face(self, outcome: Outcome) -> bytes:
        return encode(to_pixels(self._bundle.generator.render(outcome.latent, outcome.noise, SIZE)[0]), "png", {})
