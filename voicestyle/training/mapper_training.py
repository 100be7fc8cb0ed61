"""Train a bundle's mapper through its generator and face encoder; see docs/mapper.md."""

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from voicestyle.bundle import Bundle
from voicestyle.engine import FaceEncoder, Generator
from voicestyle.latent_prior import LatentPrior
from voicestyle.mapper import Mapper
from voicestyle.pipeline import Pipeline
from voicestyle.training.checkpoint import read_state, write_atomically
from voicestyle.training.errors import TrainingError
from voicestyle.training.mapper_objective import FaceNetworks, Losses, MapperObjective, between
from voicestyle.training.mapper_options import PRIOR_WEIGHT, MapperOptions
from voicestyle.training.mapper_pool import Voices, make_pool, split_speakers

BANK_ROWS = 20_000  # rows w of the bank, evenly chosen, from which statistics are computed
WARM_UP = 3  # TorchScript profiles the first calls of a module, and its later calls may round differently
_STATE = {"mapper", "best", "optimiser", "step", "seconds", "waited", "history", "description"}


@dataclass(frozen=True)
class Validation:
    """Figures of the held-out speakers after `step` steps.

    training_loss: mean since the validation before, NaN at step 0. losses: of the mapper's faces. first_similarity:
    of the first latents' faces. first_between, between: mean cosine between the faces of different speakers, of the
    first latents and of the mapper. seconds: of training so far.
    """

    step: int
    seconds: float
    training_loss: float
    losses: Losses
    first_similarity: float
    first_between: float
    between: float

    def __str__(self) -> str:
        return (
            f"step {self.step}: loss {self.training_loss:.4f}, held out {self.losses.loss:.4f}; "
            f"similarity {self.first_similarity:.3f} to {self.losses.similarity:.3f}, "
            f"distance {self.losses.distance:.3f}, drift {self.losses.drift:.3f}, "
            f"between faces {self.first_between:.3f} to {self.between:.3f}; {self.seconds:.0f} s"
        )


Report = Callable[[Validation], None]
"""Called after each validation."""


class MapperTraining:
    """The training of one mapper. After `run`, `history` has all validations and `best` the one whose weights are kept.

    Args:
        bundle: its generator, face encoder, first latents and latent bank are used; none of it is changed.
        voices: embeddings of the bundle's voice encoder with their speakers.
        options: see `MapperOptions`.
        prior: in place of the bundle's own; without either, one is fitted to the latent bank.
        device: where the bundle's networks are. The mapper itself is trained on the CPU.

    Raises:
        TrainingDataError: too few speakers.
        TrainingError: embeddings of another size than the bundle's.
    """

    def __init__(
        self,
        bundle: Bundle,
        voices: Voices,
        options: MapperOptions | None = None,
        *,
        prior: LatentPrior | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.options = options = options or MapperOptions()
        manifest = bundle.manifest
        for embedding, speaker in voices:
            if embedding.shape != (manifest.embedding_dim,):
                raise TrainingError(
                    f"a voice must have {manifest.embedding_dim} components as in the bundle, "
                    f"received {list(embedding.shape)} for {speaker!r}"
                )
        training, self.held_out = split_speakers([speaker for _, speaker in voices])
        pipeline = Pipeline(bundle, device=device, capacity=1)

        def first_latents(embeddings: Tensor) -> Tensor:
            return torch.stack([pipeline.first_latent(embedding) for embedding in embeddings])

        self._pool = make_pool(voices, training, first_latents, virtual=options.virtual, seed=options.seed)
        held_out = make_pool(voices, self.held_out, first_latents)
        # With as many negatives as in training, so that few held-out speakers are no easier to tell apart.
        negatives = self._pool.fixed(options.others).embeddings
        self._validation = held_out.fixed(options.validation_voices).with_negatives(negatives)
        bank = _bank_rows(bundle)
        prior = prior or bundle.latent_prior or LatentPrior.fit(bank)
        self.objective = MapperObjective(
            _face_networks(bundle, options, device), prior, _prior_weight(bundle, options), options
        )
        rows = bank.reshape(-1, manifest.latent_dim)
        torch_state = torch.random.get_rng_state()
        torch.manual_seed(options.seed)
        self.mapper = Mapper(
            manifest.embedding_dim,
            rows.mean(axis=0),
            rows.std(axis=0),
            prior.held if options.hold else None,
            hidden=options.hidden,
            layers=options.layers,
            bound=options.bound,
        )
        torch.random.set_rng_state(torch_state)
        self._description = self._describe(bundle, prior)
        self._first = self._first_figures()
        self.optimiser = options.optimiser().create(self.mapper.parameters())
        self.step, self.seconds, self._waited = 0, 0.0, 0
        self.history: list[Validation] = []
        self._best_weights: dict[str, Tensor] = {}

    @property
    def best(self) -> Validation:
        """The validation with the smallest loss, of whose step the mapper is."""
        return min(self.history, key=lambda validation: validation.losses.loss)

    @property
    def speakers(self) -> int:
        """Number of training speakers."""
        return len(self._pool)

    def run(self, report: Report = lambda _: None, checkpoint: Path | None = None) -> Mapper:
        """Train, and return the mapper of the best validation in evaluation mode.

        checkpoint: written after each validation. If it exists, the training continues from it: on a CPU to the same
        bits as an undisturbed one, as long as the share of `minutes` that is used is below that of `steps`.

        Raises:
            TrainingError: a checkpoint of other options or data, or a loss that is not finite.
            CheckpointError: another file.
        """
        self._warm_up()
        if checkpoint and checkpoint.is_file():
            self.resume(checkpoint)
        if not self.history:
            self._validate([], report, checkpoint)
        losses: list[float] = []
        start = perf_counter() - self.seconds
        while not self._is_over():
            losses.append(self._train_step())
            self.seconds = perf_counter() - start
            if self.step % self.options.validate_every == 0 or self._progress() >= self.options.steps:
                self._validate(losses, report, checkpoint)
                losses = []
        self.mapper.load_state_dict(self._best_weights)
        return self.mapper.eval()

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint. Raises TrainingError if it was made with other options or data."""
        state = read_state(path, _STATE, self._description)
        self.mapper.load_state_dict(state["mapper"])
        self.optimiser.load_state_dict(state["optimiser"])
        self._best_weights = state["best"]
        self.step, self.seconds, self._waited = state["step"], state["seconds"], state["waited"]
        self.history = [Validation(**row | {"losses": Losses(**row["losses"])}) for row in state["history"]]

    def _is_over(self) -> bool:
        return self._progress() >= self.options.steps or self._waited >= self.options.patience

    def _progress(self) -> int:
        """The step, or the larger number of steps that belongs to the time that was used."""
        if self.options.minutes is None:
            return self.step
        return max(self.step, int(self.seconds / (60 * self.options.minutes) * self.options.steps))

    def _train_step(self) -> float:
        options = self.options
        for group in self.optimiser.param_groups:
            group["lr"] = options.optimiser().learning_rate_at(self._progress(), options.steps)
        drawn = self._pool.draw(options.batch, options.others, options.seed, self.step)
        scalar, losses = self.objective.gradient(self.mapper(drawn.embeddings, drawn.first), drawn)
        if not math.isfinite(losses.loss):
            raise TrainingError(f"every loss must be finite; step {self.step + 1} diverged: lower the learning rate")
        self.optimiser.zero_grad(set_to_none=True)
        scalar.backward()
        if options.clip:
            nn.utils.clip_grad_norm_(self.mapper.parameters(), options.clip)
        self.optimiser.step()
        self.step += 1
        return losses.loss

    def _validate(self, losses: list[float], report: Report, checkpoint: Path | None) -> None:
        drawn = self._validation
        with torch.no_grad():
            latents = self.mapper(drawn.embeddings[: len(drawn.first)], drawn.first)
        reached, faces = self.objective.evaluate(latents, drawn)
        if not math.isfinite(reached.loss):
            raise TrainingError(f"every loss must be finite; step {self.step} diverged: lower the learning rate")
        mean = sum(losses) / len(losses) if losses else math.nan
        validation = Validation(self.step, self.seconds, mean, reached, *self._first, between(faces))
        if not self.history or reached.loss < self.best.losses.loss:
            self._best_weights, self._waited = copy.deepcopy(self.mapper.state_dict()), 0
        else:
            self._waited += 1
        self.history.append(validation)
        if checkpoint:
            self._save(checkpoint)
        report(validation)

    def _save(self, path: Path) -> None:
        state = {
            "mapper": self.mapper.state_dict(),
            "best": self._best_weights,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "waited": self._waited,
            "history": [asdict(validation) for validation in self.history],
            "description": self._description,
        }
        write_atomically(path, state)

    def _first_figures(self) -> tuple[float, float]:
        """Similarity of the first latents' faces of the held-out speakers, and the mean cosine between them."""
        losses, faces = self.objective.evaluate(self._validation.first, self._validation)
        return losses.similarity, between(faces)

    def _warm_up(self) -> None:
        drawn = self._pool.draw(self.options.batch, 0, self.options.seed, 0)
        for _ in range(WARM_UP):
            self.objective.gradient(drawn.first, drawn)

    def _describe(self, bundle: Bundle, prior: LatentPrior) -> dict[str, Any]:
        manifest = bundle.manifest
        pools = [self._pool.embeddings, self._pool.first, self._validation.embeddings, self._validation.first]
        return {
            "options": self.options.description(),
            "bundle": f"{manifest.name}@{manifest.version}",
            "networks": {name: manifest.files.get(name, "") for name in ("generator.pt", "face_encoder.pt")},
            "voices": _sha256(*(each.numpy() for each in pools)),
            "prior": _sha256(prior.whitening, prior.held),
            "prior_weight": self.objective.prior_weight,
        }


def train_mapper(
    bundle: Bundle,
    voices: Voices,
    options: MapperOptions | None = None,
    *,
    prior: LatentPrior | None = None,
    checkpoint: Path | None = None,
    report: Report = lambda _: None,
    device: torch.device | str = "cpu",
) -> Mapper:
    """Train a mapper for a bundle on voice embeddings and their speakers: `MapperTraining` in one call."""
    return MapperTraining(bundle, voices, options, prior=prior, device=device).run(report, checkpoint)


def _face_networks(bundle: Bundle, options: MapperOptions, device: torch.device | str) -> FaceNetworks:
    on_cpu = torch.device(device).type == "cpu"
    return FaceNetworks(
        cast(Generator, bundle.generator),
        cast(FaceEncoder, bundle.face_encoder),
        bundle.manifest.image_size,
        bundle.manifest.encoder_size,
        torch.device(device),
        options.at_once or (1 if on_cpu else options.batch),
    )


def _prior_weight(bundle: Bundle, options: MapperOptions) -> float:
    if options.prior_weight is not None:
        return options.prior_weight
    return PRIOR_WEIGHT if bundle.manifest.prior is None else bundle.manifest.prior.weight


def _bank_rows(bundle: Bundle) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Latents [n, D] or [n, L, D] of the bank, at most `BANK_ROWS` rows w."""
    latents = bundle.latent_bank.latents
    step = -(-len(latents) * (bundle.manifest.latent_rows or 1) // BANK_ROWS)
    return np.array(latents[::step])


def _sha256(*arrays: np.ndarray[Any, Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
