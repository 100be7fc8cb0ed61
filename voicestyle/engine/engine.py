"""The optimisation engine: the latents of many faces are optimised in one batch that requests join and leave.

At step i of S of each item (VoiceStyle, 10.1145/3671002, with the projection of arXiv 1912.04958, appendix D): the
generator makes an image from w plus scheduled noise, the objective compares it with the item's target, and Adam changes
w and the noise maps to reduce the objective's loss + 1e5 · autocorrelation of the noise maps. The published loss has
another term, 0.001 · Σ(w − w̃)². w̃ − w is the added noise alone, so its gradient is zero and the term is left out.

With a latent prior (`voicestyle.latent_prior`), an item can add weight · distance of w from its centre to the loss, and
can hold directions of w: after Adam's update, the components of w along them are those of the first latent again.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from voicestyle.engine import adam, noise_maps
from voicestyle.engine.networks import Generator
from voicestyle.engine.objective import Objective
from voicestyle.engine.outcome import Outcome, Progress
from voicestyle.engine.prior_terms import PriorTerms
from voicestyle.engine.row_parts import RowParts
from voicestyle.engine.rows import Item, Rows
from voicestyle.engine.schedule import Schedule
from voicestyle.engine.step_graphs import Capture, Graphs, RowGraphs, StepGraphs
from voicestyle.engine.step_numbers import StepNumbers
from voicestyle.latent_prior import LatentPrior

Value = TypeVar("Value", float, Tensor)


class Engine:
    """A running batch of latent optimisations.

    The result of an item depends on its own arguments alone: its noise comes from its own seed, and no reduction
    crosses items. Sequentially it is bit-identical whatever else is in the batch. Batched, it is equal up to rounding
    errors, which fifty steps of Adam can amplify until the PSNR between two images is only 33 dB. On a CPU one item
    keeps all cores busy, so a batched step saves no time there and needs memory for the features of all items.

    The engine knows no files and no protocols, and never waits for the device inside a step.

    Where the device has too little memory for a batched step without graphs, the step takes the items through the
    networks in smaller parts.

    Args:
        generator: images from latents. The gradient of its parameters is never computed.
        objective: the loss of images against the items' targets.
        latent_std: sqrt(Σ(w_j − mean)² / count) over all samples and all components of w.
        latent_rows: L to optimise w+ [L, D], which has a row for each layer of the generator; None to optimise w [D].
        schedule: for items that are added without one; by default the published one.
        capacity: most items at once.
        max_steps: most steps of an item.
        batched: whether a step takes all items through the networks at once, or one item after the other; by default
            sequential on a CPU, batched elsewhere.
        prior: a latent prior for the items that ask for it. Without one, a step does nothing for it; with one, items
            that do not ask for it get the same bits as without.
    """

    def __init__(
        self,
        generator: Generator,
        objective: Objective,
        *,
        latent_std: float,
        latent_rows: int | None = None,
        capacity: int = 8,
        max_steps: int = 500,
        schedule: Schedule | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batched: bool | None = None,
        prior: LatentPrior | None = None,
    ) -> None:
        self.generator = generator
        self.objective = objective
        self.latent_std = latent_std
        self.max_steps = max_steps
        self.schedule = schedule or Schedule()
        self.device = torch.device(device)
        self.dtype = dtype
        self.batched = self.device.type != "cpu" if batched is None else batched

        self._rows = Rows(capacity, self.device)
        self._parts = RowParts(capacity)
        latent_shape = (generator.latent_dim,) if latent_rows is None else (latent_rows, generator.latent_dim)
        self._latent = self._variable(*latent_shape)
        self._noise = [self._variable(1, *shape) for shape in generator.noise_shapes]
        self._latent_noise = self._rows.allocate(max_steps, *latent_shape, dtype=dtype)
        self._targets = [self._rows.allocate(*spec.shape, dtype=spec.dtype or dtype) for spec in objective.targets]
        self._trace = self._rows.allocate(max_steps, len(objective.figures), dtype=dtype)
        self._prior = PriorTerms(prior, self._rows, latent_shape, dtype) if prior is not None else None
        self._here = torch.arange(capacity, device=self.device)
        self._graphs: Graphs | None = None

    def _variable(self, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
        value, first, second = (self._rows.allocate(*shape, dtype=self.dtype) for _ in range(3))
        return value, first, second

    def capture(self, capture: Capture, sizes: Sequence[int] | None = None) -> None:
        """Capture the step as graphs; later steps replay these: one for each batch size, or sequentially for each row.

        sizes: the batch sizes of a batched engine; by default 1, 2, 4 … capacity.

        Raises RuntimeError while the engine has items, ValueError for sizes out of range or for a sequential engine,
        and what `capture` raises.
        """
        if self.live:
            raise RuntimeError(f"graphs must be captured before an item is added, got {self.live} items")
        if sizes is not None and not self.batched:
            raise ValueError(f"a sequential engine steps one item at a time, got sizes {list(sizes)}")
        packed = torch.zeros(len(StepNumbers._fields), self.capacity, dtype=self.dtype, device=self.device)
        if self.batched:
            self._graphs = StepGraphs(self._step_rows, packed, capture, sizes)
        else:
            self._graphs = RowGraphs(self._step_rows, packed, capture)

    @property
    def captured(self) -> bool:
        """Whether steps replay captured graphs."""
        return self._graphs is not None

    @property
    def capacity(self) -> int:
        """Most items at once."""
        return self._rows.capacity

    @property
    def live(self) -> int:
        """Items that were added and not yet removed."""
        return len(self._rows)

    def add(
        self,
        key: Hashable,
        target: Sequence[Tensor],
        first_latent: Tensor,
        *,
        seed: int,
        steps: int,
        schedule: Schedule | None = None,
        noise: Sequence[Tensor] | None = None,
        latent_noise: Tensor | None = None,
        prior_weight: float = 0.0,
        prior_centre: Tensor | None = None,
        hold: bool = False,
    ) -> None:
        """Add an item, which takes its first step with the next call of `step`.

        Args:
            key: identifies the item until it is removed.
            target: the tensors that the objective's `targets` describes.
            first_latent: [D], or [L, D] for w+.
            seed: seeds the noise maps, then the noise on w. Drawn on the CPU, so it is the same for every device.
            steps: how many it takes, 1 … max_steps.
            schedule: in place of the engine's.
            noise: first noise maps [1, R, R] in place of the seed's.
            latent_noise: ε of each step [steps, D] or [steps, L, D] in place of the seed's.
            prior_weight: the weight of the distance in the prior, at least 0.
            prior_centre: the distance is measured from it. [D], or for w+ [L, D] or [D] for all rows; by default the
                first latent.
            hold: whether the prior's held directions are held.

        Raises:
            ValueError: a key that was added before, a number of steps or a weight out of range, a wrong shape, or
                something of a prior for an engine without it.
            RuntimeError: the batch is full.
        """
        if not 1 <= steps <= self.max_steps:
            raise ValueError(f"steps must be 1 to {self.max_steps}, got {steps}")
        if len(target) != len(self._targets):
            raise ValueError(f"a target of this objective has {len(self._targets)} tensors, got {len(target)}")
        for given, stored in zip(target, self._targets, strict=True):
            _check_shape("target", given, stored.shape[1:])
        _check_shape("first_latent", first_latent, self._latent[0].shape[1:])
        source = torch.Generator().manual_seed(seed)
        maps = noise_maps.draw(self.generator.noise_shapes, source, self.dtype)
        if noise is not None:
            maps = list(noise)
        if latent_noise is None:
            latent_noise = torch.randn(steps, *first_latent.shape, generator=source, dtype=self.dtype)
        _check_shape("latent_noise", latent_noise, (steps, *first_latent.shape))
        if len(maps) != len(self._noise):
            raise ValueError(f"the generator takes {len(self._noise)} noise maps, got {len(maps)}")
        for given, (value, _, _) in zip(maps, self._noise, strict=True):
            _check_shape("noise map", given, value.shape[1:])

        centre = first_latent if prior_centre is None else prior_centre
        if tuple(centre.shape) != first_latent.shape[-1:]:  # [D] is a centre for all rows of w+
            _check_shape("prior_centre", centre, first_latent.shape)
        if not 0 <= prior_weight < math.inf:
            raise ValueError(f"prior_weight must be a number of at least 0, got {prior_weight}")
        if self._prior is None and (prior_weight or hold or prior_centre is not None):
            raise ValueError("prior_weight, prior_centre and hold need an engine with a prior, got one without")
        if self._prior is not None and hold and not self._prior.held:
            raise ValueError("hold needs a prior with held directions, got one without")

        item = self._rows.add(key, steps, schedule or self.schedule, prior_weight, hold)
        row = item.row
        for given, stored in zip(target, self._targets, strict=True):
            stored[row] = given.to(stored)
        self._latent[0][row] = first_latent.to(self._latent[0])
        self._latent_noise[row, :steps] = latent_noise.to(self._latent_noise)
        for given, (value, _, _) in zip(maps, self._noise, strict=True):
            value[row] = given.to(value)
        if self._prior is not None:
            self._prior.add(row, first_latent, centre)

    def step(self, keys: Iterable[Hashable] | None = None) -> list[Hashable]:
        """Take one step with each of the items named by `keys`, by default with all.

        Returns the keys of those that have now taken all of their steps; these must be removed before the next step.

        Raises:
            KeyError: an unknown key.
            ValueError: an item that has taken all of its steps, or some items only of a batched engine.
            RuntimeError: of the device. Where a single item needs more memory than is free, no item of the batch has
                changed.
        """
        stepped = {key: self._rows.items[key] for key in (self._rows.items if keys is None else keys)}
        items = sorted(stepped.values(), key=lambda item: item.row)
        for key, item in stepped.items():
            if item.step == item.steps:
                raise ValueError(f"item {key!r} has taken all of its {item.steps} steps; remove it first")
        if not self.batched:
            for item in items:
                self._step_items([item])
        elif len(items) != self.live:
            raise ValueError(f"a batched engine steps all of its {self.live} items at once, got {len(items)}")
        elif items:
            self._step_items(items)
        return [key for key, item in stepped.items() if item.step == item.steps]

    def progress(self) -> dict[Hashable, Progress]:
        """The progress of every item, with one read from the device."""
        items = self._rows.items
        rows, steps = [item.row for item in items.values()], [max(0, item.step - 1) for item in items.values()]
        values = self._trace[rows, steps].tolist() if items else []
        return {
            key: Progress(item.step, item.steps, self._named(last if item.step else [math.nan] * len(last)))
            for (key, item), last in zip(items.items(), values, strict=True)
        }

    def _named(self, values: Iterable[Value]) -> dict[str, Value]:
        return dict(zip(self.objective.figures, values, strict=True))

    def outcome(self, key: Hashable) -> Outcome:
        """What the optimisation of an item has reached so far. Raises KeyError for an unknown key."""
        item = self._rows.items[key]
        row = slice(item.row, item.row + 1)
        return Outcome(
            latent=self._latent[0][row].clone(),
            noise=[value[row].clone() for value, _, _ in self._noise],
            figures=self._named(self._trace[item.row, : item.step].T.clone().cpu().unbind()),
        )

    def remove(self, key: Hashable) -> None:
        """Remove an item, finished or not. Raises KeyError for an unknown key."""
        self._rows.remove(key)

    def _step_items(self, items: list[Item]) -> None:
        """Take one step with items in consecutive rows."""
        rows = slice(items[0].row, items[-1].row + 1)
        numbers = [
            StepNumbers.at(item.schedule, item.step, item.steps, self.latent_std, item.prior_weight, item.hold)
            for item in items
        ]
        packed = StepNumbers.pack(numbers, self.device, self.dtype)
        if self._graphs is None:
            self._step_in_parts(rows, packed)
        else:
            self._graphs.step(rows, packed)
        for item in items:
            item.step += 1

    def _step_rows(self, rows: slice, packed: Tensor) -> None:
        """The part of a step that runs on the device. packed: StepNumbers [K, N], the only input from the host."""
        self._update(rows, packed, *self._gradients(rows, packed))

    def _step_in_parts(self, rows: slice, packed: Tensor) -> None:
        """The same in parts of the rows that fit into memory. All are updated at the end, so it changes all or none."""
        parts = self._parts.run(
            rows, lambda part: self._gradients(part, packed[:, part.start - rows.start : part.stop - rows.start])
        )
        gradients, figures = parts[0]
        if len(parts) > 1:
            gradients = [torch.cat(each) for each in zip(*(part for part, _ in parts), strict=True)]
            figures = torch.cat([each for _, each in parts])
        self._update(rows, packed, gradients, figures)

    def _gradients(self, rows: slice, packed: Tensor) -> tuple[list[Tensor], Tensor]:
        """The gradients of w and of each noise map [N, ...], and the objective's figures [N, F]. Changes nothing."""
        numbers = StepNumbers.unpack(packed)
        latent_noise = self._latent_noise[self._here[rows], numbers.step.long()]
        latent_noise = latent_noise * numbers.noise_strength.view([-1] + [1] * (latent_noise.dim() - 1))
        leaves = [value[rows].detach().requires_grad_() for value, _, _ in (self._latent, *self._noise)]
        images = self.generator(leaves[0] + latent_noise, leaves[1:])
        loss, figures = self.objective(images, [target[rows] for target in self._targets])
        if self._noise:
            loss = loss + numbers.noise_regularisation * noise_maps.regularisation(leaves[1:])
        return list(torch.autograd.grad(loss.sum(), leaves)), figures.detach()

    @torch.no_grad()
    def _update(self, rows: slice, packed: Tensor, gradients: list[Tensor], figures: Tensor) -> None:
        """Record the figures, and change w and the noise maps by their gradients."""
        numbers = StepNumbers.unpack(packed)
        if self._prior is not None:
            weight = numbers.prior_weight
            gradients[0] = self._prior.add_gradient(gradients[0], rows, self._latent[0][rows], weight)
        self._trace[self._here[rows], numbers.step.long()] = figures.to(self._trace)
        for (value, first, second), gradient in zip([self._latent, *self._noise], gradients, strict=True):
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
        if self._prior is not None:
            self._prior.restore_held_(rows, self._latent[0][rows], numbers.hold)
        for value, _, _ in self._noise:
            noise_maps.normalise_(value[rows])


def _check_shape(name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(tensor.shape)}")
