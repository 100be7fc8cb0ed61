"""The optimisation engine: many faces approach their voices in one batch, joining and leaving at any step.

Per item, at step i of S (VoiceStyle, 10.1145/3671002, with the projection of arXiv 1912.04958, appendix D):
an image is made from w plus scheduled noise, the face encoder embeds it, and Adam moves w and the noise maps
along the gradient of (1 − cos(voice, face)) + 1e5 · autocorrelation of the noise maps. The published loss has
a third term, 0.001 · Σ(w − w̃)²; w̃ − w is the added noise alone, so its gradient is zero and it is left out.
"""

from collections.abc import Hashable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from voicestyle.engine import adam, noise_maps
from voicestyle.engine.encoder_input import encoder_input
from voicestyle.engine.networks import FaceEncoder, Generator
from voicestyle.engine.outcome import Outcome, Progress
from voicestyle.engine.rows import Item, Rows
from voicestyle.engine.schedule import Schedule
from voicestyle.engine.step_graphs import Capture, StepGraphs
from voicestyle.engine.step_numbers import StepNumbers

FAIR_TURN = 4


class Engine:
    """A running batch of latent optimisations.

    An item's answer depends on its own arguments alone: its noise comes from its own seed, and no reduction
    crosses items. Where they go through the networks one by one it does so to the last bit, together up to
    rounding, which fifty steps of Adam can carry to 33 dB between two images. On a CPU one item fills the cores,
    so going together gains nothing and holds the features of all of them at once.

    The engine knows no files and no protocols, and never waits for the device inside a step.

    Args:
        generator: images from latents. The gradient of its parameters is never computed.
        face_encoder: embeddings from images.
        latent_std: sqrt(Σ(w_j − mean)² / count) over all samples and all components of w.
        schedule: of items that bring none of their own; by default as published.
        capacity: most items live at once.
        max_steps: most steps an item may ask for.
        image_size: images are average-pooled to this size before they are clamped and embedded.
        encoder_size: the face encoder's own input size; images of another size are resized for it.
        together: whether the live items go through the networks together or one by one; by default together,
            but one by one on a CPU.
    """

    def __init__(
        self,
        generator: Generator,
        face_encoder: FaceEncoder,
        *,
        latent_std: float,
        embedding_dim: int,
        capacity: int = 8,
        max_steps: int = 500,
        image_size: int = 256,
        encoder_size: int | None = None,
        schedule: Schedule | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        together: bool | None = None,
    ) -> None:
        self.generator = generator
        self.face_encoder = face_encoder
        self.latent_std = latent_std
        self.max_steps = max_steps
        self.image_size = image_size
        self.encoder_size = encoder_size or image_size
        self.schedule = schedule or Schedule()
        self.device = torch.device(device)
        self.dtype = dtype
        self.together = self.device.type != "cpu" if together is None else together

        self._rows = Rows(capacity, self.device)
        self._latent = self._variable(generator.latent_dim)
        self._noise = [self._variable(1, *shape) for shape in generator.noise_shapes]
        self._latent_noise = self._rows.allocate(max_steps, generator.latent_dim, dtype=dtype)
        self._voice = self._rows.allocate(embedding_dim, dtype=dtype)
        self._similarity = self._rows.allocate(dtype=dtype)
        self._trace = self._rows.allocate(max_steps, dtype=dtype)
        self._here = torch.arange(capacity, device=self.device)
        self._graphs: StepGraphs | None = None
        self._done: dict[Hashable, tuple[Item, Outcome]] = {}
        self._ticks = 0

    def _variable(self, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
        value, first, second = (self._rows.allocate(*shape, dtype=self.dtype) for _ in range(3))
        return value, first, second

    def capture(self, capture: Capture) -> None:
        """From now on, take steps as graphs that were captured for each size of the batch.

        Raises RuntimeError where an item is live, where items do not go together, and what `capture` raises.
        """
        if not self.together:
            raise RuntimeError("graphs need items that go together, got an engine that takes them one by one")
        if self.live:
            raise RuntimeError(f"graphs are captured before any item is live, got {self.live}")
        packed = torch.zeros(len(StepNumbers._fields), self.capacity, dtype=self.dtype, device=self.device)
        self._graphs = StepGraphs(self._step_rows, packed, capture)

    @property
    def capacity(self) -> int:
        """Most items live at once."""
        return self._rows.capacity

    @property
    def live(self) -> int:
        """Items that still have steps to go."""
        return len(self._rows)

    def add(
        self,
        key: Hashable,
        voice_embedding: Tensor,
        first_latent: Tensor,
        *,
        seed: int,
        steps: int,
        schedule: Schedule | None = None,
        noise: Sequence[Tensor] | None = None,
        latent_noise: Tensor | None = None,
    ) -> None:
        """Let a request join the batch at its next step.

        Args:
            key: its name until it is removed.
            voice_embedding: [E], any norm.
            first_latent: [latent_dim].
            seed: draws the noise maps, then the noise on w, on the CPU, so that every device draws the same.
            steps: how many to take, 1 … max_steps.
            schedule: its own in place of the engine's.
            noise: first noise maps [1, R, R] instead of the seed's.
            latent_noise: ε for each step [steps, latent_dim] instead of the seed's.

        Raises:
            ValueError: a key that is already here, a step count out of range, or a wrong shape.
            RuntimeError: the batch is full.
        """
        if key in self._done:
            raise ValueError(f"id {key!r} is finished and not yet removed")
        if not 1 <= steps <= self.max_steps:
            raise ValueError(f"steps must be 1 to {self.max_steps}, got {steps}")
        _check_shape("voice_embedding", voice_embedding, self._voice.shape[1:])
        _check_shape("first_latent", first_latent, self._latent[0].shape[1:])
        source = torch.Generator().manual_seed(seed)
        maps = [torch.randn(value.shape[1:], generator=source, dtype=self.dtype) for value, _, _ in self._noise]
        if noise is not None:
            maps = list(noise)
        if latent_noise is None:
            latent_noise = torch.randn(steps, first_latent.shape[0], generator=source, dtype=self.dtype)
        _check_shape("latent_noise", latent_noise, (steps, first_latent.shape[0]))
        if len(maps) != len(self._noise):
            raise ValueError(f"the generator takes {len(self._noise)} noise maps, got {len(maps)}")
        for given, (value, _, _) in zip(maps, self._noise, strict=True):
            _check_shape("noise map", given, value.shape[1:])

        item = self._rows.add(key, steps, schedule or self.schedule)
        item.last, row = self._ticks, item.row
        self._voice[row] = F.normalize(voice_embedding.to(self._voice), dim=0)
        self._latent[0][row] = first_latent.to(self._latent[0])
        self._latent_noise[row, :steps] = latent_noise.to(self._latent_noise)
        for given, (value, _, _) in zip(maps, self._noise, strict=True):
            value[row] = given.to(value)

    def step(self, count: int = 1) -> None:
        """Take `count` steps with everything that is live; whoever has no steps left drops out on the way."""
        for _ in range(count):
            for group in self._groups():
                self._advance(group)
            self._retire()

    def advance(self) -> None:
        """Take one step: with all that go together, or with one item.

        That is an item before its first step, or the one with the fewest steps left, so that faces are finished one
        after the other and not all late; every fourth step goes to whoever has waited longest, so that a long one
        gets on beside ever new short ones.
        """
        if groups := self._groups():
            self._advance(min(groups, key=self._turn_of))
            self._retire()

    def _turn_of(self, group: list[Item]) -> tuple[int, int, int]:
        """Whose turn it is: the least comes first."""
        item = group[0]
        if item.step and self._ticks % FAIR_TURN:
            return 1, item.steps - item.step, 0
        return 0, item.last, item.step

    def _groups(self) -> list[list[Item]]:
        """The live items, by who goes through the networks together."""
        items = [item for _, item in self._rows.in_order()]
        if self.together:
            return [items] if items else []
        return [[item] for item in items]

    def progress(self) -> dict[Hashable, Progress]:
        """Where every request stands, live or finished, with one read from the device."""
        similarity = self._similarity[: self.live].tolist()
        live = {
            key: Progress(item.step, item.steps, similarity[item.row] if item.step else float("nan"))
            for key, item in self._rows.in_order()
        }
        done = {
            key: Progress(item.step, item.steps, float(outcome.similarity[-1]))
            for key, (item, outcome) in self._done.items()
        }
        return live | done

    def outcome(self, key: Hashable) -> Outcome:
        """What a request has come to, finished or not. Raises KeyError for an unknown key."""
        if key in self._done:
            return self._done[key][1]
        item = self._rows.items[key]
        row = slice(item.row, item.row + 1)
        return Outcome(
            latent=self._latent[0][row].clone(),
            noise=[value[row].clone() for value, _, _ in self._noise],
            similarity=self._trace[item.row, : item.step].clone().cpu(),
            largest_batch=item.largest_batch,
        )

    def remove(self, key: Hashable) -> None:
        """Forget a request, finished or not. Raises KeyError for an unknown key."""
        if self._done.pop(key, None) is None:
            self._rows.remove(key)

    def _advance(self, items: list[Item]) -> None:
        """One step of items that stand in successive rows."""
        rows = slice(items[0].row, items[-1].row + 1)
        numbers = [StepNumbers.at(item.schedule, item.step, item.steps, self.latent_std) for item in items]
        packed = StepNumbers.pack(numbers, self.device, self.dtype)
        if self._graphs is None:
            self._step_rows(rows, packed)
        else:
            self._graphs.step(packed)
        self._ticks += 1
        for item in items:
            item.step += 1
            item.last = self._ticks
            item.largest_batch = max(item.largest_batch, self.live)

    def _step_rows(self, rows: slice, packed: Tensor) -> None:
        """The tensors' part of a step, of the items' StepNumbers [K, N]: it takes nothing else from the host."""
        numbers = StepNumbers.unpack(packed)
        here, step = self._here[rows], numbers.step.long()
        latent_noise = self._latent_noise[here, step] * numbers.noise_strength[:, None]
        variables = [self._latent, *self._noise]
        leaves = [value[rows].detach().requires_grad_() for value, _, _ in variables]
        image = self.generator(leaves[0] + latent_noise, leaves[1:])
        face = self.face_encoder(encoder_input(image, self.image_size, self.encoder_size))
        similarity = (F.normalize(face, dim=1) * self._voice[rows]).sum(dim=1)
        loss = (1 - similarity).sum()
        if self._noise:
            loss = loss + (numbers.noise_regularisation * noise_maps.regularisation(leaves[1:])).sum()
        gradients = torch.autograd.grad(loss, leaves)

        with torch.no_grad():
            self._similarity[rows] = similarity
            self._trace[here, step] = similarity
            for (value, first, second), gradient in zip(variables, gradients, strict=True):
                adam.update_(
                    value[rows],
                    gradient,
                    first[rows],
                    second[rows],
                    step_size=numbers.step_size,
                    second_correction=numbers.second_correction,
                    first_weight=numbers.first_weight,
                    second_decay=numbers.second_decay,
                    second_weight=numbers.second_weight,
                    eps=numbers.eps,
                )
            for value, _, _ in self._noise:
                noise_maps.normalise_(value[rows])

    def _retire(self) -> None:
        for key, item in self._rows.in_order():
            if item.step == item.steps:
                outcome = self.outcome(key)
                self._rows.remove(key)
                self._done[key] = (item, outcome)


def _check_shape(name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(tensor.shape)}")
