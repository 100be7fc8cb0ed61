"""The training loop of both encoders, for any source of batches and any objective.

`VideoBatches` with `CmpcObjective` is CMPC's training; `BatchMaker` with `DemoObjective` is that of the demo bundle.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from voicestyle.training.checkpoint import read_state, write_atomically
from voicestyle.training.distributed import Ranks
from voicestyle.training.errors import TrainingError
from voicestyle.training.losses import unit
from voicestyle.training.optimiser import OptimiserOptions

Losses = dict[str, float]
Report = Callable[[int, Losses], None]
"""report(epoch, mean losses and learning rate), after each epoch."""
Record = Callable[[int, Losses], None]
"""record(step, losses and learning rate), for every step; called after an epoch, so no step waits for the device."""

PRECISIONS = ("float32", "bfloat16")
_LAYOUT = torch.channels_last


class Encoded(Protocol):
    """What the loop needs to know of a batch: the inputs of both encoders, this process's share of them."""

    @property
    def voices(self) -> Tensor:
        """For CMPC, log-mels [n, 1, 64, T]."""
        ...

    @property
    def faces(self) -> Tensor:
        """For CMPC, images [m, 3, H, W]."""
        ...


AnyBatch = TypeVar("AnyBatch", bound=Encoded)
BatchOut = TypeVar("BatchOut", bound=Encoded, covariant=True)
BatchIn = TypeVar("BatchIn", bound=Encoded, contravariant=True)


class Source(Protocol[BatchOut]):
    """A source of batches, whose randomness depends on (seed, epoch, index) alone."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches."""
        ...

    def batches(self, epoch: int) -> Iterator[BatchOut]:
        """The batches of an epoch."""
        ...

    def description(self) -> dict[str, Any]:
        """Options and data, which a resumed training must share."""
        ...


class Objective(Protocol[BatchIn]):
    """Losses, with the state that they need between steps."""

    def start_epoch(self, epoch: int) -> None:
        """Prepare the epoch, e.g. by clustering."""
        ...

    def losses(self, batch: BatchIn, voices: Tensor, faces: Tensor) -> dict[str, Tensor]:
        """Scalars, of which `loss` is minimised, for the L2-normalised embeddings of the whole batch."""
        ...

    def description(self) -> dict[str, Any]:
        """Options, which a resumed training must share."""
        ...

    def state(self) -> dict[str, Any]:
        """The state, for a checkpoint."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        ...


@dataclass(frozen=True)
class LoopOptions:
    """epochs: passes over the data. precision: of the encoders' operations, "float32" or "bfloat16" (autocast; weights,
    losses and memory stay in float32)."""

    epochs: int = 188
    precision: str = "float32"
    optimiser: OptimiserOptions = field(default_factory=OptimiserOptions)

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise TrainingError(f"epochs must be at least 1, received {self.epochs}")
        if self.precision not in PRECISIONS:
            raise TrainingError(f"precision must be one of {', '.join(PRECISIONS)}, received {self.precision!r}")


class Trainer(Generic[AnyBatch]):
    """Trains `model`, which maps voices and faces to both embeddings, on batches of `source` to minimise `objective`.

    Nothing depends on torch's global random state, so a training that is resumed after an epoch gives the same bits.
    """

    def __init__(
        self,
        model: nn.Module,
        source: Source[AnyBatch],
        objective: Objective[AnyBatch],
        options: LoopOptions,
        ranks: Ranks | None = None,
    ) -> None:
        self.source, self.objective, self.options = source, objective, options
        self.ranks = ranks or Ranks()
        # channels_last gives the same numbers in a third of the time on a CPU.
        self.model = model.to(self.ranks.device, memory_format=_LAYOUT)  # pyright: ignore[reportCallIssue]
        self._encoders: nn.Module = self.ranks.wrap(self.model)
        self.optimiser = options.optimiser.create(self.model.parameters())
        self.epoch = 0

    def run(self, report: Report, checkpoint: Path | None = None, record: Record | None = None) -> None:
        """Train the remaining epochs. After each, save the checkpoint, then call `record` and `report`.

        Raises TrainingError when a loss is not finite; the checkpoint is that of the epoch before.
        """
        while self.epoch < self.options.epochs:
            steps = self._train_epoch()
            if not all(math.isfinite(value) for losses in steps for value in losses.values()):
                raise TrainingError(
                    f"every loss must be finite; epoch {self.epoch + 1} diverged: lower the learning rate"
                )
            self.epoch += 1
            if checkpoint and self.ranks.is_first:
                self.save(checkpoint)
            if record:
                first = (self.epoch - 1) * len(steps)
                for step, losses in enumerate(steps, start=first):
                    record(step, losses)
            report(self.epoch, {name: sum(losses[name] for losses in steps) / len(steps) for name in steps[0]})
        self.model.eval()

    def save(self, path: Path) -> None:
        """Write a checkpoint for `resume`. That of a CMPC model also is a published one, which `cmpc2.load` reads."""
        state = {
            "model": self.model.state_dict(),
            "epoch": self.epoch,
            "optimiser": self.optimiser.state_dict(),
            "objective": self.objective.state(),
            "description": self._description(),
        }
        write_atomically(path, state)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint. Raises TrainingError if it was made with other options or data."""
        state = read_state(path, {"model", "epoch", "optimiser", "objective", "description"}, self._description())
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        for moments in self.optimiser.state.values():
            for name, value in moments.items():
                if isinstance(value, Tensor) and value.ndim == 4:
                    moments[name] = value.contiguous(memory_format=_LAYOUT)  # as the weights
        self.objective.restore(state["objective"])
        self.epoch = state["epoch"]

    def _description(self) -> dict[str, Any]:
        encoders = {name: str(list(value.shape)) for name, value in self.model.state_dict().items() if value.ndim == 4}
        return {
            "loop": asdict(self.options),
            "data": self.source.description(),
            "objective": self.objective.description(),
            "encoders": encoders,
        }

    def _train_epoch(self) -> list[Losses]:
        # Dropout draws from torch's global state, which is the caller's; each epoch has a state of its own.
        devices = [self.ranks.device] if self.ranks.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.epoch)
            return self._steps()

    def _steps(self) -> list[Losses]:
        self.objective.start_epoch(self.epoch)
        self.model.train()
        per_epoch = self.source.steps_per_epoch
        recorded: list[dict[str, Tensor]] = []
        for step, batch in enumerate(self.source.batches(self.epoch), start=self.epoch * per_epoch):
            for group in self.optimiser.param_groups:
                group["lr"] = self._rate(step)
            losses = self.objective.losses(batch, *self._embed(batch))
            self.optimiser.zero_grad(set_to_none=True)
            losses["loss"].backward()
            if self.options.optimiser.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.options.optimiser.clip)
            self.optimiser.step()
            recorded.append({name: value.detach() for name, value in losses.items()})
        first = self.epoch * per_epoch
        return [
            {name: float(value) for name, value in losses.items()} | {"learning_rate": self._rate(first + i)}
            for i, losses in enumerate(recorded)
        ]

    def _rate(self, step: int) -> float:
        return self.options.optimiser.learning_rate_at(step, self.options.epochs * self.source.steps_per_epoch)

    def _embed(self, batch: AnyBatch) -> tuple[Tensor, Tensor]:
        """Embeddings of the whole batch, L2-normalised: voices and faces."""
        inputs = [
            each.contiguous(memory_format=_LAYOUT) if each.ndim == 4 else each for each in (batch.voices, batch.faces)
        ]
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"):
            voices, faces = self._encoders(*inputs)
        return self.ranks.gather(unit(voices)), self.ranks.gather(unit(faces))
