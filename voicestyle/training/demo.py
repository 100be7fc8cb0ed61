"""Train the demo bundle's encoders on a folder of voices and generated faces, and write the committed files."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmpc2 import CMPC, ResNetConfig
from cmpc2.resnet import BasicBlock
from voicestyle.generators import DEFAULT_HEAD, WHEEL_SHA256, MobileStyleGAN, face_z, from_wheel
from voicestyle.training.assets import (
    consistent_faces,
    embed_faces,
    embed_voices,
    measure,
    rounded_to_float16,
    write_assets,
)
from voicestyle.training.batches import Batch, BatchMaker, TrainingSet
from voicestyle.training.clusters import kmeans_within
from voicestyle.training.demo_objective import DemoObjective
from voicestyle.training.faces import FaceCache, compiled, pooled
from voicestyle.training.labels import SEXES, FaceLabels, label_faces
from voicestyle.training.options import FaceOptions, TrainOptions
from voicestyle.training.pairing import pair_by_sex, skin_luminance, without_direction
from voicestyle.training.trainer import Trainer
from voicestyle.training.voices import Speaker, hold_out, read_speakers, served_log_mel, training_log_mels

Progress = Callable[[str], Callable[[range], Iterable[int]]]
"""progress("drawing faces") returns a function that wraps a range of steps, as `tqdm` does."""

VOICE = ResNetConfig(widths=(32, 64, 128, 192), depths=(1, 1, 1, 1), embedding_dim=192)
FACE = ResNetConfig(widths=(24, 48, 96, 192), depths=(1, 1, 1, 1), embedding_dim=192)


@dataclass(frozen=True)
class DemoTraining:
    """Paths and options of a training run.

    voices: folder of recordings. work: folder for faces, labels, log-mels and the checkpoint, used to resume.
    wheel: of the generator. assets: folder to write to. prototypes: number of prototypes, over both sexes.
    held_out_per_sex: number of women, and of men, whose recordings are only evaluated.
    """

    voices: Path
    work: Path
    wheel: Path
    assets: Path
    prototypes: int = 80
    held_out_per_sex: int = 20
    face_options: FaceOptions = field(default_factory=FaceOptions)
    train_options: TrainOptions = field(default_factory=TrainOptions)

    def run(self, progress: Progress, report: Callable[[str], None]) -> dict[str, Any]:
        """Train, evaluate on the held-out speakers and write the assets. Returns the metrics.

        Raises TrainingDataError for unsuitable data, if possible before faces are drawn.
        """
        training, held_out = hold_out(read_speakers(self.voices), self.held_out_per_sex)
        self.work.mkdir(parents=True, exist_ok=True)
        generator = from_wheel(self.wheel)
        images, labels = self._faces(generator, progress)
        rows, sex = self._adults(labels, self.face_options.training_draws)
        mels = training_log_mels(self.voices, training, self.work / "log_mels.npz", progress("reading voices"))
        identities = self._identities(generator, images, rows, sex, training)
        small = pooled(images, rows, self.face_options.image_size)
        data = TrainingSet(mels, _sex_of(training), small, sex, identities)

        torch.manual_seed(self.train_options.seed)
        model = CMPC(VOICE, FACE)
        trainer = demo_trainer(model, data, self.train_options)
        checkpoint = self.work / "checkpoint.pt"
        if checkpoint.is_file():
            trainer.resume(checkpoint)
            report(f"resuming after epoch {trainer.epoch} from {checkpoint}")
        bar = iter(progress("training")(range(trainer.epoch, self.train_options.epochs)))

        def after_epoch(epoch: int, losses: dict[str, float]) -> None:
            next(bar, None)
            report(f"epoch {epoch}: " + ", ".join(f"{name} {value:.3f}" for name, value in losses.items()))

        trainer.run(after_epoch, checkpoint)
        return self._finish(rounded_to_float16(model), images, labels, held_out)

    def _faces(self, generator: MobileStyleGAN, progress: Progress) -> tuple[NDArray[np.uint8], FaceLabels]:
        """Draw the faces, uint8 [draws, H, W, 3], and label them."""
        options = self.face_options
        head = hashlib.sha256(DEFAULT_HEAD.read_bytes()).hexdigest()
        cache = FaceCache(self.work, generator.optimise_size, f"wheel {WHEEL_SHA256[:16]}, head {head[:16]}")
        if cache.done < options.draws:
            cache.draw(compiled(generator), options.draws, progress("drawing faces"))
        images = cache.images[: options.draws]
        return images, label_faces(images, self.work / "labels.npz", progress("labelling faces"))

    def _adults(self, labels: FaceLabels, draws: int) -> tuple[NDArray[np.int64], Tensor]:
        """Rows (equal to the seeds) and sex of the confident adults among the first `draws` faces, int64 [n] both."""
        rows = labels.adults(self.face_options, draws)
        return rows, torch.from_numpy(labels.sex[rows].astype(np.int64))

    def _identities(
        self,
        generator: MobileStyleGAN,
        images: NDArray[np.uint8],
        rows: NDArray[np.int64],
        sex: Tensor,
        training: list[Speaker],
    ) -> Tensor:
        with torch.inference_mode():
            latents = generator.map(face_z(rows.tolist()))
        looks = without_direction(latents, torch.from_numpy(skin_luminance(images[rows])))
        options = self.train_options
        return pair_by_sex(_sex_of(training), sex, looks, options.faces_per_identity, seed=options.seed)

    def _finish(
        self,
        model: CMPC,
        images: NDArray[np.uint8],
        labels: FaceLabels,
        held_out: list[Speaker],
    ) -> dict[str, Any]:
        rows, sex = self._adults(labels, self.face_options.draws)
        faces = embed_faces(model, pooled(images, rows, self.face_options.image_size))
        kept = consistent_faces(faces, sex)
        faces, sex, rows = faces[kept], sex[kept], rows[kept.numpy()]
        clusters = kmeans_within(faces, sex, self.prototypes, seed=self.train_options.seed)
        mels = [served_log_mel(self.voices / speaker.file) for speaker in held_out]
        measured = {"faces": len(rows)} | measure(embed_voices(model, mels), _sex_of(held_out), faces, sex, clusters)
        bank: dict[str, NDArray[Any]] = {
            "seeds": rows.astype(np.uint32),
            "assignments": clusters.assignments.numpy().astype(np.int32),
            "centroids": clusters.centroids.numpy(),
            "face_embeddings": faces.half().numpy(),
        }
        card = {
            "image_size": self.face_options.image_size,
            "held_out": [asdict(speaker) for speaker in held_out],
            "training": asdict(self.train_options) | {"faces": asdict(self.face_options)},
            "measured": measured,
        }
        write_assets(self.assets, model, {"voice": VOICE, "face": FACE}, bank, card)
        return measured


def demo_trainer(model: CMPC, data: TrainingSet, options: TrainOptions) -> Trainer[Batch]:
    """The trainer of `model`, whose last biases it lowers, at the start."""
    lower_last_bias(model)
    maker = BatchMaker(data, options)
    return Trainer(model, maker, DemoObjective(maker, model.voice_subnet.embedding_dim), options.loop())


def lower_last_bias(model: CMPC) -> None:
    """Initialise the last activation to be mostly zero.

    Embeddings are means of ReLU outputs, hence positive: two embeddings of a new network have a cosine of about 0.9,
    and most of a short training would be spent on separating them.
    """
    for encoder in (model.voice_subnet, model.face_subnet):
        last = encoder.layer4[-1]
        assert isinstance(last, BasicBlock)
        torch.nn.init.constant_(last.bn2.bias, -2.0)


def _sex_of(speakers: list[Speaker]) -> Tensor:
    return torch.tensor([SEXES.index(speaker.sex) for speaker in speakers])
