"""The objective of the demo's training: CMPC's losses on voices and faces that were paired by `pairing`.

Besides the instance and the prototype contrast of CMPC (arXiv 2204.14057): contrast within each modality, contrast
across by sex, and the distance of a voice to its own face.
"""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from voicestyle.training.batches import VIEWS, Batch
from voicestyle.training.clusters import spherical_kmeans
from voicestyle.training.losses import contrast_within, cross_modal_contrast, prototype_contrast
from voicestyle.training.memory_bank import MemoryBank
from voicestyle.training.options import TrainOptions

_MEMORY_MOMENTUM = 0.5


class DemoObjective:
    """The losses of batches, with the memory banks of `speakers` training speakers."""

    def __init__(self, options: TrainOptions, speakers: int, dim: int) -> None:
        self.options, self.speakers = options, speakers
        self.memory = MemoryBank(speakers, dim, _MEMORY_MOMENTUM)
        self._prototypes: dict[str, Tensor] = {}

    def description(self) -> dict[str, Any]:
        """The options, which a resumed training must share."""
        return asdict(self.options)

    def start_epoch(self, epoch: int) -> None:
        """Find the prototypes."""
        del epoch
        self._prototypes = self._joint_prototypes() if self.memory.all_seen() else {}

    def losses(self, batch: Batch, voices: Tensor, faces: Tensor) -> dict[str, Tensor]:
        """The weighted losses and their sum `loss`, for embeddings [2N, E] of voices and faces."""
        options = self.options
        same, same_sex = (ids[:, None] == ids for ids in (batch.identities, batch.sex))
        within = [contrast_within(each, same, options.temperature) for each in (voices, faces)]
        parts = {
            "within": options.within_weight * torch.stack(within).mean(),
            "instance": options.instance_weight * cross_modal_contrast(voices, faces, same, options.temperature),
            "sex": options.sex_weight * cross_modal_contrast(voices, faces, same_sex, options.sex_temperature),
            "distance": options.distance_weight * (1 - (voices * faces).sum(1)).mean(),
        }
        is_speaker = batch.identities < self.speakers
        speakers = batch.identities[is_speaker]
        if self._prototypes:
            assigned = self._prototypes["assignments"][speakers]
            contrasts = [
                prototype_contrast(mine[is_speaker], self._prototypes[other], assigned, options.temperature).mean()
                for mine, other in ((voices, "face"), (faces, "voice"))
            ]
            parts["prototype"] = options.prototype_weight * torch.stack(contrasts).mean()
        means = [each.detach()[is_speaker].view(VIEWS, -1, each.shape[1]).mean(0) for each in (voices, faces)]
        self.memory.update(speakers[: len(means[0])], *means)
        return parts | {"loss": torch.stack(list(parts.values())).sum()}

    def state(self) -> dict[str, Any]:
        """Memory banks, for a checkpoint; prototypes are found again in each epoch."""
        return {"memory": self.memory.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.memory.restore(state["memory"])

    def _joint_prototypes(self) -> dict[str, Tensor]:
        """Means of both modalities over the clusters of the joint embeddings."""
        joint = F.normalize(self.memory.voice + self.memory.face, dim=1)
        count = min(self.options.clusters, len(joint))
        assignments = spherical_kmeans(joint, count, seed=self.options.seed).assignments
        means = {
            name: F.normalize(torch.zeros(count, bank.shape[1]).index_add_(0, assignments, bank), dim=1)
            for name, bank in self.memory.features.items()
        }
        return means | {"assignments": assignments}
