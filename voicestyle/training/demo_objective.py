"""The objective of the demo's training: CMPC's losses on voices and faces that belong together by sex alone.

Besides the instance and the prototype contrast of CMPC: contrast within each modality, by speaker and by sex, contrast
across by sex, and agreement of two views of a face. With untrained encoders, the cross-modal losses would make all
embeddings collapse to one point, so they start after a share of the epochs.
"""

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from voicestyle.training.batches import VIEWS, Batch, BatchMaker
from voicestyle.training.clusters import spherical_kmeans
from voicestyle.training.losses import contrast_within, cross_modal_contrast, prototype_contrast, view_agreement
from voicestyle.training.memory_bank import MemoryBank
from voicestyle.training.pairing import match_alike

_MEMORY_MOMENTUM = 0.5


class DemoObjective:
    """The losses of the batches of `maker`, with the memory banks of its speakers."""

    def __init__(self, maker: BatchMaker, dim: int) -> None:
        self.maker, self.options = maker, maker.options
        self.memory = MemoryBank(len(maker.data.speaker_sex), dim, _MEMORY_MOMENTUM)
        self._across = False
        self._prototypes: dict[str, Tensor] = {}

    def description(self) -> dict[str, Any]:
        """The options, which a resumed training must share."""
        return asdict(self.options)

    def start_epoch(self, epoch: int) -> None:
        """Assign identities by similarity in the first epoch with cross-modal losses, and find the prototypes."""
        first_across = math.ceil(self.options.within_share * self.options.epochs)
        self._across = epoch >= first_across
        # Rows of speakers that were not in a batch yet are 0, which clusters and assignments cannot use.
        seen = self.memory.all_seen()
        if seen and epoch == first_across:
            order = match_alike(self.memory.voice, self.memory.face, self.maker.data.speaker_sex)
            self.maker.partners = self.maker.partners[order]
            self.memory.face.copy_(self.memory.face[order])
        self._prototypes = self._joint_prototypes() if seen else {}

    def losses(self, batch: Batch, voices: Tensor, faces: Tensor) -> dict[str, Tensor]:
        """The weighted losses and their sum `loss`, for embeddings [2B, E] of voices and [2B + M, E] of faces."""
        options, all_faces, faces = self.options, faces, faces[: len(voices)]
        same_speaker = batch.speakers[:, None] == batch.speakers
        cold, warm = options.temperature, options.sex_temperature
        within = [
            contrast_within(voices, same_speaker, cold),
            contrast_within(faces, same_speaker, cold),
            contrast_within(voices, batch.sex[:, None] == batch.sex, warm),
            contrast_within(all_faces, batch.face_sex[:, None] == batch.face_sex, warm),
        ]
        parts = {
            "within": options.within_weight * torch.stack(within).mean(),
            "agreement": options.agreement_weight * view_agreement(faces, VIEWS),
        }
        if self._across:
            instance = cross_modal_contrast(voices, faces, same_speaker, cold)
            sex = cross_modal_contrast(voices, all_faces, batch.sex[:, None] == batch.face_sex, warm)
            parts["instance"] = options.instance_weight * instance
            parts["sex"] = options.sex_weight * sex
        if self._across and self._prototypes:
            partner = self._prototypes["assignments"][batch.speakers]
            contrasts = [
                prototype_contrast(mine, self._prototypes[other], partner, options.temperature).mean()
                for mine, other in ((voices, "face"), (faces, "voice"))
            ]
            parts["prototype"] = options.prototype_weight * torch.stack(contrasts).mean()
        means = [each.detach().view(VIEWS, -1, each.shape[1]).mean(0) for each in (voices, faces)]
        self.memory.update(batch.speakers[: len(means[0])], *means)
        return parts | {"loss": torch.stack(list(parts.values())).sum()}

    def state(self) -> dict[str, Any]:
        """Memory banks and assignment, for a checkpoint; prototypes are found again in each epoch."""
        return {"memory": self.memory.state(), "partners": self.maker.partners}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.memory.restore(state["memory"])
        self.maker.partners = state["partners"]

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
