"""Train the demo bundle's encoders on a folder of voices and generated faces, and write the committed files.

recordings → GE2E vectors → codes        ↘
                                          identities → encoders → bank, prototypes, map of first latents
seeds → faces → descriptors → codes      ↗
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from voicestyle.demo_encoders import FaceEncoder, FaceHead, VoiceHead
from voicestyle.face_networks import fetch_dlib_resnet
from voicestyle.generators import from_wheel
from voicestyle.latent_map import LatentMap
from voicestyle.training.assets import (
    DemoAssets,
    consistent_faces,
    embed_faces,
    measure,
    rounded_to_float16,
    write_assets,
)
from voicestyle.training.batches import BatchMaker, TrainingSet, ViewsOf
from voicestyle.training.clusters import kmeans_within
from voicestyle.training.demo_faces import FaceImages, Faces, bank_faces, draw_images, speaker_latents
from voicestyle.training.demo_objective import DemoObjective
from voicestyle.training.faces import StageProgress
from voicestyle.training.first_latents import fit_latent_map
from voicestyle.training.labels import SEXES
from voicestyle.training.nuisances import SKIN_LUMINANCE
from voicestyle.training.options import TUNE, FaceOptions, TrainOptions
from voicestyle.training.pairing import FaceAxes, VoiceAxes
from voicestyle.training.randomness import Draw, keyed_generator
from voicestyle.training.speaker_vectors import SpeakerVectors, speaker_vectors
from voicestyle.training.trainer import Trainer
from voicestyle.training.voices import Speaker, hold_out, read_speakers
from voicestyle.voice_conditions import CONDITIONS
from voicestyle.voice_networks import fetch_ge2e

Report = Callable[[str], None]
"""Called with a line on the progress of a phase."""

EMBEDDING_DIM = 64
CODE_DIM = 48
HIDDEN = 256  # of the face's head
MADE_UP = 3  # voices of each face of the bank, for the mapper
CROPS = 24  # of each speaker, to fit the axis of sex and the map of first latents
SEX_LENGTH = 0.7  # of the part of a voice's first embedding that is its sex; that of its code is 1
SEX_SHARPNESS = 2.0  # of tanh; the mean scores of the sexes are −1 and 1


class Encoders(nn.Module):
    """Both encoders, as the trainer takes them."""

    def __init__(self, voice: nn.Module, face: nn.Module) -> None:
        super().__init__()
        self.voice_subnet, self.face_subnet = voice, face

    def forward(self, voices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of voices and of faces."""
        return self.voice_subnet(voices), self.face_subnet(faces)


@dataclass(frozen=True)
class Trained:
    """measured: metrics, by `assets.measure`. voices: embeddings [E] for the mapper, each with its speaker's id."""

    measured: dict[str, Any]
    voices: list[tuple[Tensor, str]]


@dataclass(frozen=True)
class DemoTraining:
    """Paths and options of a training run.

    voices: folder of recordings. work: folder for faces, labels, vectors and checkpoints, used to resume. wheel: of the
    generator. wheels: folder of GE2E's wheel. networks: folder of the face network's files. assets: folder to write to.
    prototypes: number of prototypes, over both sexes. held_out_per_sex: number of women, and of men, whose recordings
    are only evaluated. head_options: of the training of both heads. tune_options: of that of the face network.
    """

    voices: Path
    work: Path
    wheel: Path
    wheels: Path
    networks: Path
    assets: Path
    prototypes: int = 80
    held_out_per_sex: int = 20
    face_options: FaceOptions = field(default_factory=FaceOptions)
    head_options: TrainOptions = field(default_factory=TrainOptions)
    tune_options: TrainOptions = TUNE

    def run(self, progress: StageProgress, report: Report) -> Trained:
        """Train, evaluate on the held-out speakers and write the assets, without those of a mapper.

        Raises TrainingDataError for unsuitable data, if possible before faces are drawn.
        """
        training, held_out = hold_out(read_speakers(self.voices), self.held_out_per_sex)
        self.work.mkdir(parents=True, exist_ok=True)
        generator, network = from_wheel(self.wheel), fetch_dlib_resnet(self.networks)
        vectors = self._vectors(training, "training", progress)
        faces = bank_faces(generator, network, self.face_options, self.work, progress)
        sex = _sex_of(training)
        crops = _crops(vectors, self.head_options.seed)
        voice_axes = VoiceAxes.fit(vectors.means(), crops, sex.numpy(), CODE_DIM)
        # Skin stays free: a voice says nothing of it, and one skin for all would be a statement, too. Age and sex do
        # not: codes far from the mean would make children, and faces of the other sex.
        held = np.delete(faces.directions, SKIN_LUMINANCE, axis=0).astype(np.float64)
        face_axes = FaceAxes.fit(faces.latents, faces.descriptors, faces.sex, CODE_DIM, held=held)
        codes = voice_axes.codes(vectors.means())
        seed = self.head_options.seed
        latents = speaker_latents(faces, face_axes, codes, sex.numpy(), self.face_options, seed)
        images = FaceImages(draw_images(generator, latents, progress("drawing the speakers' faces")), faces)
        data = TrainingSet(
            speakers=vectors,
            speaker_sex=sex,
            speaker_faces=torch.arange(images.of_speakers).view(latents.shape[:2]),
            bank_rows=torch.arange(images.of_speakers, len(images)),
            bank_codes=face_axes.codes(faces.latents, faces.sex),
            bank_sex=torch.from_numpy(faces.sex),
            axes=voice_axes,
        )
        voice_head, face_head = new_heads(voice_axes, faces.descriptors, self.head_options.seed)
        views = images.view_descriptors(
            network,
            self.face_options.views,
            self.work / "view_descriptors.npz",
            progress("describing views of faces"),
        )
        self._train("heads", Encoders(voice_head, face_head), data, self.head_options, views, progress, report)
        face_encoder = FaceEncoder(network.requires_grad_(True), face_head)
        encoders = Encoders(voice_head, face_encoder)
        self._train("tune", encoders, data, self.tune_options, images.views, progress, report)
        rounded_to_float16(face_encoder)
        held_vectors = self._vectors(held_out, "held_out", progress)
        latent_map = self._map(voice_head.eval(), data, face_axes, crops)
        measured = self._finish(encoders, latent_map, faces, held_vectors, held_out)
        return Trained(measured, self._mapper_voices(voice_head, data, crops, training))

    def _mapper_voices(
        self, head: VoiceHead, data: TrainingSet, crops: NDArray[np.float32], speakers: list[Speaker]
    ) -> list[tuple[Tensor, str]]:
        """Embeddings of the speakers' crops, and of made-up voices of the bank: each face is a speaker of its own."""
        generator = keyed_generator(Draw.ITEM, self.head_options.seed, len(speakers))
        every = torch.arange(len(data.bank_rows))
        made_up = [data.made_up_voices(every, generator) for _ in range(MADE_UP)]
        names = [speaker.speaker for speaker in speakers for _ in range(CROPS)]
        names += [f"face {row}" for _ in range(MADE_UP) for row in every.tolist()]
        with torch.inference_mode():
            embeddings = head(torch.from_numpy(np.concatenate([crops.reshape(-1, crops.shape[-1]), *made_up])))
        return list(zip(embeddings.clone(), names, strict=True))

    def _vectors(self, speakers: list[Speaker], name: str, progress: StageProgress) -> SpeakerVectors:
        # Only training uses the recordings under conditions.
        return speaker_vectors(
            self.voices,
            speakers,
            CONDITIONS if name == "training" else {},
            lambda: fetch_ge2e(self.wheels),
            self.work / f"{name}_vectors.npz",
            progress(f"reading voices ({name.replace('_', ' ')})"),
        )

    def _train(
        self,
        name: str,
        model: Encoders,
        data: TrainingSet,
        options: TrainOptions,
        views_of: ViewsOf,
        progress: StageProgress,
        report: Report,
    ) -> None:
        objective = DemoObjective(options, len(data.speaker_sex), EMBEDDING_DIM)
        trainer = Trainer(model, BatchMaker(data, options, views_of), objective, options.loop())
        checkpoint = self.work / f"{name}.pt"
        if checkpoint.is_file():
            trainer.resume(checkpoint)
            report(f"{name}: resuming after epoch {trainer.epoch} from {checkpoint}")
        bar = iter(progress(f"training ({name})")(range(trainer.epoch, options.epochs)))

        def after_epoch(epoch: int, losses: dict[str, float]) -> None:
            next(bar, None)
            report(f"{name}, epoch {epoch}: " + ", ".join(f"{part} {value:.3f}" for part, value in losses.items()))

        trainer.run(after_epoch, checkpoint)
        model.eval()

    def _map(self, head: VoiceHead, data: TrainingSet, axes: FaceAxes, crops: NDArray[np.float32]) -> LatentMap:
        """The map of first latents, of real and made-up voices."""
        generator = keyed_generator(Draw.ITEM, self.head_options.seed)
        sex, count = data.speaker_sex.numpy(), crops.shape[1]
        codes = np.repeat(data.axes.codes(data.speakers.means()), count, axis=0)
        made_up = [data.made_up_voices(torch.arange(len(data.bank_rows)), generator) for _ in range(2)]
        vectors = np.concatenate([crops.reshape(-1, crops.shape[-1]), *made_up])
        codes = np.concatenate([codes, data.bank_codes, data.bank_codes])
        sexes = np.concatenate([np.repeat(sex, count), data.bank_sex.numpy(), data.bank_sex.numpy()])
        with torch.inference_mode():
            embeddings = head(torch.from_numpy(vectors)).numpy()
        return fit_latent_map(embeddings, axes.latents(codes, sexes), sexes, self.prototypes)

    def _finish(
        self,
        encoders: Encoders,
        latent_map: LatentMap,
        faces: Faces,
        held_vectors: SpeakerVectors,
        held_out: list[Speaker],
    ) -> dict[str, Any]:
        sex = torch.from_numpy(faces.sex)
        embeddings = embed_faces(encoders.face_subnet, (faces.images[row] for row in faces.rows))
        kept = consistent_faces(embeddings, sex)
        embeddings, sex, rows = embeddings[kept], sex[kept], faces.rows[kept.numpy()]
        clusters = kmeans_within(embeddings, sex, self.prototypes, seed=self.head_options.seed)
        with torch.inference_mode():
            voices = nn.functional.normalize(encoders.voice_subnet(torch.from_numpy(held_vectors.means())), dim=1)
        measured = {"faces": len(rows)} | measure(voices, _sex_of(held_out), embeddings, sex, clusters)
        card = {
            "embedding_dim": EMBEDDING_DIM,
            "hidden": HIDDEN,
            "held_out": [asdict(speaker) for speaker in held_out],
            "training": {
                "heads": asdict(self.head_options),
                "tune": asdict(self.tune_options),
                "faces": asdict(self.face_options),
            },
            "measured": measured,
        }
        write_assets(
            self.assets,
            DemoAssets(
                voice_head=encoders.voice_subnet,
                face_encoder=encoders.face_subnet,
                seeds=rows,
                clusters=clusters,
                embeddings=embeddings,
                latent_map=latent_map,
                directions=faces.directions,
                card=card,
            ),
        )
        return measured


def new_heads(axes: VoiceAxes, descriptors: NDArray[np.float32], seed: int) -> tuple[VoiceHead, FaceHead]:
    """The voice's head, which gives the code and the sex of a voice, and a random head for faces.

    The axis of sex is a linear discriminant and is not trained further: the contrast of identities would move it.
    """
    torch.manual_seed(seed)
    voice, face = VoiceHead(EMBEDDING_DIM), FaceHead(EMBEDDING_DIM, HIDDEN)
    weight = axes.axes.T / axes.length
    with torch.no_grad():
        voice.linear.weight.zero_()
        voice.linear.bias.zero_()
        voice.linear.weight[: len(weight)] = torch.from_numpy(weight).float()
        voice.linear.bias[: len(weight)] = torch.from_numpy(-weight @ axes.centre).float()
        voice.sex.weight.copy_(torch.from_numpy(SEX_SHARPNESS * axes.sex_axis[None]))
        voice.sex.bias.fill_(SEX_SHARPNESS * (axes.sex_bias - float(axes.sex_axis @ axes.centre)))
        voice.sex_length.fill_(SEX_LENGTH)
        face.mean.copy_(torch.from_numpy(descriptors.mean(0)))
        face.scale.copy_(torch.from_numpy(descriptors.std(0)))
    voice.sex.requires_grad_(False)
    return voice, face


def _crops(vectors: SpeakerVectors, seed: int) -> NDArray[np.float32]:
    """Vectors [S, CROPS, V] of random crops of each speaker."""
    generator = keyed_generator(Draw.ORDER, seed)
    return np.stack([[vectors.crop(i, generator) for _ in range(CROPS)] for i in range(len(vectors.windows))])


def _sex_of(speakers: list[Speaker]) -> Tensor:
    return torch.tensor([SEXES.index(speaker.sex) for speaker in speakers])
