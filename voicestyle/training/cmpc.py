"""The objective of CMPC (IJCAI 2022, arXiv 2204.14057) on videos without labels.

A video's voice and face are a positive pair. Three parts, in the terms of the paper:

- cross-modal instance contrast: the face of the same video against the faces of other videos, and the reverse;
- cross-modal prototype contrast: faces are clustered into prototypes, and a voice is attracted by the prototype of its
  video's face, and the reverse; several numbers of prototypes (levels), so that videos of the same or a similar person
  are not only negatives of each other;
- instance re-weighting: pairs whose similarity is low compared with that of their prototypes contribute less.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from voicestyle.training.clusters import Clusters, concentration, spherical_kmeans
from voicestyle.training.distributed import Ranks
from voicestyle.training.errors import TrainingError
from voicestyle.training.losses import instance_contrast, instance_weights, prototype_contrast
from voicestyle.training.memory_bank import MODALITIES, MemoryBank
from voicestyle.training.randomness import Draw, keyed_generator
from voicestyle.training.video_batches import VideoBatch

Level = dict[str, Tensor]
"""One level of prototypes of one modality: centroids [K, E], assignments int64 [N], temperature [K]."""


@dataclass(frozen=True)
class CmpcOptions:
    """Options of the objective. The defaults are those of CMPC's own training.

    temperature: τ of the instance contrast. prototype_temperature: mean of the prototypes' temperatures φ.
    levels: numbers of prototypes. cluster_iterations: of k-means. cluster_every: epochs between two clusterings.
    memory_momentum: share of the old embedding in the memory banks.
    negatives: embeddings of other videos from the memory banks that the instance contrast takes as further negatives.
    warm_up_epochs: epochs of instance contrast alone, before the first clustering.
    prototype_weight: of the prototype contrast. reweighting, delta, kappa: see `losses.instance_weights`.
    """

    temperature: float = 0.03
    prototype_temperature: float = 0.2
    levels: tuple[int, ...] = (500, 1000, 1500)
    cluster_iterations: int = 20
    cluster_every: int = 2
    memory_momentum: float = 0.5
    negatives: int = 0
    warm_up_epochs: int = 16
    prototype_weight: float = 1.0
    reweighting: bool = True
    delta: float = -1.0
    kappa: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        if not self.levels or min(self.levels) < 2:
            raise TrainingError(f"levels must be numbers of prototypes of at least 2, received {self.levels}")
        if min(self.temperature, self.prototype_temperature, self.kappa) <= 0:
            raise TrainingError(
                "temperature, prototype_temperature and kappa must be positive, received "
                f"{self.temperature}, {self.prototype_temperature} and {self.kappa}"
            )
        if not 0 <= self.memory_momentum < 1:
            raise TrainingError(f"memory_momentum must be in [0, 1), received {self.memory_momentum}")
        if min(self.warm_up_epochs, self.cluster_every, self.cluster_iterations) < 1:
            raise TrainingError(
                "warm_up_epochs, cluster_every and cluster_iterations must be at least 1, received "
                f"{self.warm_up_epochs}, {self.cluster_every} and {self.cluster_iterations}"
            )
        if self.negatives < 0 or self.prototype_weight < 0:
            raise TrainingError(
                "negatives and prototype_weight must be at least 0, received "
                f"{self.negatives} and {self.prototype_weight}"
            )


class CmpcObjective:
    """The losses of batches of `count` videos with embeddings of `dim`, with its memory banks and prototypes."""

    def __init__(self, count: int, dim: int, options: CmpcOptions, seed: int = 0, ranks: Ranks | None = None) -> None:
        if max(options.levels) > count:
            raise TrainingError(f"levels must be at most the number of videos {count}, received {options.levels}")
        self.options, self.seed, self.ranks = options, seed, ranks or Ranks()
        self.memory = MemoryBank(count, dim, options.memory_momentum, self.ranks.device)
        self.prototypes: dict[str, list[Level]] = {}
        self._steps = 0

    def description(self) -> dict[str, Any]:
        """The options, which a resumed training must share."""
        return asdict(self.options)

    def start_epoch(self, epoch: int) -> None:
        """Cluster the memory banks, if it is time to."""
        after = epoch - self.options.warm_up_epochs
        if after < 0 or after % self.options.cluster_every:
            return
        found = self._clustered() if self.ranks.is_first else {}
        self.prototypes = _moved(self.ranks.from_first(found), self.ranks.device)

    def losses(self, batch: VideoBatch, voices: Tensor, faces: Tensor) -> dict[str, Tensor]:
        """The mean losses of a batch and their sum `loss`, scalars; then update the memory banks.

        voices, faces: [B, E], L2-normalised, of the videos `batch.rows`. `weight` is the mean weight of the pairs.
        """
        options, rows = self.options, batch.rows
        sides = ((voices, faces, "face"), (faces, voices, "voice"))
        negatives = self._negatives(rows, sides)
        instance = torch.stack(
            [
                instance_contrast(mine, others, options.temperature, negative)
                for (mine, others, _), negative in zip(sides, negatives, strict=True)
            ]
        ).sum(0)
        weights = self._weights(rows, voices, faces)
        parts = {"instance": _weighted(instance, weights)}
        if self.prototypes and options.prototype_weight:
            prototype = torch.stack([self._prototype_contrast(mine, other, rows) for mine, _, other in sides]).sum(0)
            parts["prototype"] = options.prototype_weight * _weighted(prototype, weights)
        loss = torch.stack(list(parts.values())).sum()
        self.memory.update(rows, voices, faces)
        self._steps += 1
        return parts | {"weight": weights.mean(), "loss": loss}

    def state(self) -> dict[str, Any]:
        """Memory banks, prototypes and the number of steps, for a checkpoint."""
        return {"memory": self.memory.state(), "prototypes": self.prototypes, "steps": self._steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.memory.restore(state["memory"])
        self.prototypes, self._steps = _moved(state["prototypes"], self.ranks.device), state["steps"]

    def _clustered(self) -> dict[str, list[Level]]:
        options = self.options
        return {
            name: [
                prototype_level(bank, count, options, seed=self.seed + number)
                for number, count in enumerate(options.levels)
            ]
            for name, bank in self.memory.features.items()
        }

    def _prototype_contrast(self, mine: Tensor, other: str, rows: Tensor) -> Tensor:
        levels = [
            prototype_contrast(mine, level["centroids"].to(mine), level["assignments"][rows], level["temperature"])
            for level in self.prototypes[other]
        ]
        return torch.stack(levels).mean(0)

    def _weights(self, rows: Tensor, voices: Tensor, faces: Tensor) -> Tensor:
        if not self.prototypes or not self.options.reweighting:
            return torch.ones_like(voices[:, 0])
        levels = zip(*(self.prototypes[name] for name in MODALITIES), strict=True)
        cosines = [
            (voice["centroids"][voice["assignments"][rows]] * face["centroids"][face["assignments"][rows]]).sum(1)
            for voice, face in levels
        ]
        prototype = torch.stack(cosines).mean(0).to(voices)
        return instance_weights((voices * faces).sum(1), prototype, self.options.delta, self.options.kappa)

    def _negatives(self, rows: Tensor, sides: tuple[tuple[Tensor, Tensor, str], ...]) -> list[Tensor | None]:
        """Cosines [B, M] of both sides to drawn rows of the other modality's memory bank, none of them the own video's.

        Rows without an embedding yet are excluded too.
        """
        if not self.options.negatives:
            return [None] * len(sides)
        count = len(self.memory.voice)
        generator = keyed_generator(Draw.NEGATIVES, self.seed, self._steps)
        drawn = torch.randint(count, (self.options.negatives,), generator=generator).to(rows.device)
        cosines: list[Tensor | None] = []
        for mine, _, other in sides:
            bank = self.memory.features[other][drawn].to(mine)
            excluded = (rows[:, None] == drawn) | ~bank.any(1)
            cosines.append((mine @ bank.T).masked_fill(excluded, -torch.inf))
        return cosines


def prototype_level(points: Tensor, count: int, options: CmpcOptions, *, seed: int) -> Level:
    """Cluster points [N, E] into `count` prototypes, with their temperatures. On the CPU."""
    clusters: Clusters = spherical_kmeans(points, count, seed=seed, iterations=options.cluster_iterations)
    temperature = concentration(points, clusters, options.prototype_temperature)
    return {"centroids": clusters.centroids, "assignments": clusters.assignments, "temperature": temperature}


def _weighted(losses: Tensor, weights: Tensor) -> Tensor:
    return (weights * losses).sum() / weights.sum()


def _moved(prototypes: dict[str, list[Level]], device: torch.device) -> dict[str, list[Level]]:
    return {
        name: [{key: value.to(device) for key, value in level.items()} for level in levels]
        for name, levels in prototypes.items()
    }
