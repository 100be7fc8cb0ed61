"""Train CMPC's encoders on a folder of videos, and write them and their prototype memory: `voicestyle train`."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from cmpc2 import CMPC
from voicestyle.training.augment_faces import FaceAugmentation
from voicestyle.training.augment_voices import VoiceAugmentation
from voicestyle.training.cmpc import CmpcObjective
from voicestyle.training.distributed import Ranks
from voicestyle.training.published_files import Batches, embed_videos, write_published
from voicestyle.training.scalars import Scalars
from voicestyle.training.trainer import Losses, Report, Trainer
from voicestyle.training.training_options import TrainingOptions
from voicestyle.training.video_batches import Samples, VideoBatch, VideoBatches
from voicestyle.training.videos import VideoTable

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class CmpcTraining:
    """A training of `table`'s videos in the folder `output`, on `ranks`. An interrupted one continues."""

    table: VideoTable
    output: Path
    options: TrainingOptions = field(default_factory=TrainingOptions)
    ranks: Ranks = field(default_factory=Ranks)

    def trainer(self) -> Trainer[VideoBatch]:
        """The trainer at the checkpoint of `output`, or at the start.

        Raises TrainingError or CheckpointError for unsuitable options or an unsuitable checkpoint.
        """
        options, ranks = self.options, self.ranks
        views = (FaceAugmentation(), VoiceAugmentation()) if options.augment else (None, None)
        source = VideoBatches(Samples(self.table.videos, options.data, options.seed, *views), ranks)
        torch.manual_seed(options.seed)  # all processes start with the same weights
        model = CMPC(options.voice, options.face)
        dim = model.voice_subnet.embedding_dim
        objective = CmpcObjective(len(self.table.videos), dim, options.objective, options.seed, ranks)
        trainer = Trainer(model, source, objective, options.loop, ranks)
        if (self.output / CHECKPOINT).is_file():
            trainer.resume(self.output / CHECKPOINT)
        return trainer

    def run(
        self, trainer: Trainer[VideoBatch], report: Report, scalars: Scalars | None = None, batches: Batches = iter
    ) -> None:
        """Train to the end and write the published files. `batches` wraps the reading of the memory's images.

        Raises TrainingError for diverging losses and TrainingDataError for an unreadable file.
        """

        def after_epoch(epoch: int, losses: Losses) -> None:
            if scalars:
                scalars.epoch(epoch * trainer.source.steps_per_epoch - 1, losses)
            report(epoch, losses)

        trainer.run(after_epoch, self.output / CHECKPOINT, scalars.step if scalars else None)
        if self.ranks.is_first:
            model, options = trainer.model.eval(), self.options
            faces = embed_videos(model, self.table.videos, options.data, options.memory_images, batches)
            write_published(self.output, model, trainer.epoch, faces, self.table, options.objective, options.seed)
