"""The training loop: CMPC's losses, a memory of embeddings for the prototypes, one checkpoint per epoch."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cmpc2 import CMPC
from cmpc2.resnet import BasicBlock
from voicestyle.training.batches import VIEWS, Batch, BatchMaker
from voicestyle.training.clusters import spherical_kmeans
from voicestyle.training.errors import TrainingDataError
from voicestyle.training.losses import contrast_within, cross_modal_contrast, prototype_contrast, view_agreement
from voicestyle.training.pairing import match_alike

_MEMORY_MOMENTUM = 0.5
_WARM_UP = 0.05


class Trainer:
    """Trains `model` on the batches of `maker`. An epoch's random numbers depend only on (seed, epoch), so that a
    resumed training gives the same weights."""

    def __init__(self, model: CMPC, maker: BatchMaker) -> None:
        self.model, self.maker, self.options = model, maker, maker.options
        _lower_last_bias(model)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=self.options.learning_rate, weight_decay=self.options.weight_decay
        )
        speakers = len(maker.data.speaker_sex)
        dim = model.voice_subnet.embedding_dim
        self.epoch = 0
        self.partners = torch.arange(speakers)
        # Moving averages of each speaker's voice and face embeddings; a row is 0 before its first batch.
        self.memory = {"voice": torch.zeros(speakers, dim), "face": torch.zeros(speakers, dim)}

    def run(self, report: Callable[[int, dict[str, float]], None], checkpoint: Path | None = None) -> None:
        """Train the remaining epochs. After each, save the checkpoint and call report(epoch, mean losses)."""
        while self.epoch < self.options.epochs:
            losses = self._train_epoch()
            self.epoch += 1
            if checkpoint:
                self.save(checkpoint)
            report(self.epoch, losses)
        self.model.eval()

    def save(self, path: Path) -> None:
        """Write a checkpoint for `resume`, atomically."""
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "memory": self.memory,
            "partners": self.partners,
            "epoch": self.epoch,
            "options": asdict(self.options),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint. Raises TrainingDataError if it was made with other options."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        ours = asdict(self.options)
        differing = [name for name, value in ours.items() if state["options"].get(name) != value]
        if differing:
            raise TrainingDataError(
                f"{path} was made with other options ({', '.join(differing)}): use the same options or delete it"
            )
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.memory, self.partners, self.epoch = state["memory"], state["partners"], state["epoch"]

    def _train_epoch(self) -> dict[str, float]:
        generator = torch.Generator().manual_seed(self.options.seed * 100_003 + self.epoch)
        self.model.train()
        if self.epoch == self._first_across:
            self._match()
        prototypes = self._prototypes()
        steps = self.maker.steps_per_epoch
        sums: dict[str, float] = {}
        for step in range(steps):
            batch = self.maker.make(self._face_size(generator), self.partners, generator)
            for group in self.optimiser.param_groups:
                group["lr"] = self._learning_rate(self.epoch * steps + step, self.options.epochs * steps)
            losses = self._losses(batch, prototypes)
            self.optimiser.zero_grad(set_to_none=True)
            losses["loss"].backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimiser.step()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / steps
        return sums

    def _losses(self, batch: Batch, prototypes: dict[str, Tensor] | None) -> dict[str, Tensor]:
        options = self.options
        # channels_last gives the same numbers in a third of the time on a CPU.
        inputs = [each.contiguous(memory_format=torch.channels_last) for each in (batch.voices, batch.faces)]
        voices, all_faces = self.model(*inputs)
        voices, all_faces = F.normalize(voices, dim=1), F.normalize(all_faces, dim=1)
        faces = all_faces[: len(voices)]
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
        # With untrained encoders, cross-modal losses would make all embeddings collapse to one point.
        if self.epoch >= self._first_across:
            instance = cross_modal_contrast(voices, faces, same_speaker, cold)
            sex = cross_modal_contrast(voices, all_faces, batch.sex[:, None] == batch.face_sex, warm)
            parts["instance"] = options.instance_weight * instance
            parts["sex"] = options.sex_weight * sex
        if "instance" in parts and prototypes is not None:
            partner = prototypes["assignments"][batch.speakers]
            contrasts = [
                prototype_contrast(mine, prototypes[other], partner, options.temperature)
                for mine, other in ((voices, "face"), (faces, "voice"))
            ]
            parts["prototype"] = options.prototype_weight * sum(contrasts, torch.zeros(())) / 2
        self._remember(batch.speakers, voices.detach(), faces.detach())
        return parts | {"loss": sum(parts.values(), torch.zeros(()))}

    @property
    def _first_across(self) -> int:
        """The first epoch with cross-modal losses."""
        return math.ceil(self.options.within_share * self.options.epochs)

    def _all_seen(self) -> bool:
        return all(bool(memory.any(1).all()) for memory in self.memory.values())

    def _match(self) -> None:
        if self._all_seen():
            order = match_alike(self.memory["voice"], self.memory["face"], self.maker.data.speaker_sex)
            self.partners, self.memory["face"] = self.partners[order], self.memory["face"][order]

    def _remember(self, speakers: Tensor, voices: Tensor, faces: Tensor) -> None:
        once = speakers[: len(speakers) // VIEWS]
        for name, embeddings in (("voice", voices), ("face", faces)):
            mean = embeddings.view(VIEWS, len(once), -1).mean(0)
            memory = self.memory[name]
            kept = torch.where(memory[once].any(1, keepdim=True), _MEMORY_MOMENTUM, 0.0)
            memory[once] = kept * memory[once] + (1 - kept) * mean

    def _prototypes(self) -> dict[str, Tensor] | None:
        """Means of both modalities over the clusters of the joint embeddings; None before all speakers were seen."""
        if not self._all_seen():
            return None
        joint = F.normalize(self.memory["voice"] + self.memory["face"], dim=1)
        count = min(self.options.clusters, len(joint))
        assignments = spherical_kmeans(joint, count, seed=self.options.seed).assignments
        means = {
            name: F.normalize(torch.zeros(count, memory.shape[1]).index_add_(0, assignments, memory), dim=1)
            for name, memory in self.memory.items()
        }
        return means | {"assignments": assignments}

    def _face_size(self, generator: torch.Generator) -> int:
        sizes = self.options.face_sizes
        if self.epoch >= (1 - self.options.full_size_share) * self.options.epochs:
            return sizes[-1]
        return sizes[int(torch.randint(len(sizes), (1,), generator=generator))]

    def _learning_rate(self, step: int, steps: int) -> float:
        warm = min(1.0, (step + 1) / (_WARM_UP * steps + 1))
        return self.options.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _lower_last_bias(model: CMPC) -> None:
    """Initialise the last activation to be mostly zero.

    Embeddings are means of ReLU outputs, hence positive: two embeddings of a new network have a cosine of about 0.9,
    and most of the training would be spent on separating them.
    """
    for encoder in (model.voice_subnet, model.face_subnet):
        last = encoder.layer4[-1]
        assert isinstance(last, BasicBlock)
        torch.nn.init.constant_(last.bn2.bias, -2.0)
