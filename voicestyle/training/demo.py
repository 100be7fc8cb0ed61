"""Train the demo bundle's encoders on a folder of voices and generated faces, and write the committed files.

recordings → GE2E vectors → codes        ↘
                                          identities → encoders → bank, prototypes, map of first latents
seeds → faces → descriptors → codes      ↗
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from voicestyle.demo_encoders import FaceEncoder, FaceHead, VoiceHead
from voicestyle.face_networks import DlibResNet, fetch_dlib_resnet
from voicestyle.generators import DEFAULT_HEAD, WHEEL_SHA256, MobileStyleGAN, face_z, from_wheel
from voicestyle.latent_prior import predictive_directions
from voicestyle.training.assets import (
    DemoAssets,
    consistent_faces,
    embed_faces,
    measure,
    rounded_to_float16,
    write_assets,
)
from voicestyle.training.augment_faces import FaceAugmentation
from voicestyle.training.batches import BatchMaker, TrainingSet, ViewsOf
from voicestyle.training.clusters import kmeans_within
from voicestyle.training.demo_objective import DemoObjective
from voicestyle.training.faces import FaceCache, compiled
from voicestyle.training.first_latents import fit_latent_map
from voicestyle.training.labels import SEXES, FaceLabels, label_faces
from voicestyle.training.nuisances import SKIN_LUMINANCE, nuisances
from voicestyle.training.options import TUNE, FaceOptions, TrainOptions
from voicestyle.training.pairing import FaceAxes, VoiceAxes
from voicestyle.training.randomness import Draw, keyed_generator
from voicestyle.training.speaker_vectors import SpeakerVectors, speaker_vectors
from voicestyle.training.trainer import Trainer
from voicestyle.training.voices import Speaker, hold_out, read_speakers
from voicestyle.voice_conditions import CONDITIONS
from voicestyle.voice_networks import fetch_ge2e

StepProgress = Callable[[range], Iterable[int]]
Progress = Callable[[str], StepProgress]
"""progress("drawing faces") returns a function that wraps a range of steps, as `tqdm` does."""
Report = Callable[[str], None]

EMBEDDING_DIM = 64
CODE_DIM = 48
HIDDEN = 256  # of the face's head
CROPS = 24  # of each speaker, to fit the axis of sex and the map of first latents
SEX_LENGTH = 0.7  # of the part of a voice's first embedding that is its sex; that of its code is 1
SEX_SHARPNESS = 2.0  # of tanh; the mean scores of the sexes are −1 and 1
HOLD_RIDGE = 0.1
_BATCH = 16


class Encoders(nn.Module):
    """Both encoders, as the trainer takes them."""

    def __init__(self, voice: nn.Module, face: nn.Module) -> None:
        super().__init__()
        self.voice_subnet, self.face_subnet = voice, face

    def forward(self, voices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of voices and of faces."""
        return self.voice_subnet(voices), self.face_subnet(faces)


@dataclass(frozen=True)
class Faces:
    """images: uint8 [draws, 256, 256, 3]. rows: those of the bank, which are seeds. sex: int64 [n] of the bank.
    latents, descriptors: [n, D] and [n, F]. directions: float32 [H, D] that predict `nuisances.NAMES`, age and sex."""

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]
    sex: NDArray[np.int64]
    latents: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    directions: NDArray[np.float32]


@dataclass(frozen=True)
class Trained:
    """measured: metrics. voices: embeddings [E] of crops of the training speakers, each with the speaker's id."""

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

    def run(self, progress: Progress, report: Report) -> "Trained":
        """Train, evaluate on the held-out speakers and write the assets, without those of a mapper.

        Raises TrainingDataError for unsuitable data, if possible before faces are drawn.
        """
        training, held_out = hold_out(read_speakers(self.voices), self.held_out_per_sex)
        self.work.mkdir(parents=True, exist_ok=True)
        generator, network = from_wheel(self.wheel), fetch_dlib_resnet(self.networks)
        vectors = self._vectors(training, "training", progress)
        faces = self._faces(generator, network, progress)
        sex = _sex_of(training)
        crops = _crops(vectors, self.head_options.seed)
        voice_axes = VoiceAxes.fit(vectors.means(), crops, sex.numpy(), CODE_DIM)
        # Skin stays free: a voice says nothing of it, and one skin for all would be a statement, too. Age and sex do
        # not: codes far from the mean would make children, and faces of the other sex.
        held = np.delete(faces.directions, SKIN_LUMINANCE, axis=0).astype(np.float64)
        face_axes = FaceAxes.fit(faces.latents, faces.descriptors, faces.sex, CODE_DIM, held=held)
        codes = voice_axes.codes(vectors.means())
        drawn = self._speaker_faces(generator, faces, face_axes, codes, sex.numpy(), progress)
        images = _Images(drawn.reshape(-1, *drawn.shape[2:]), faces)
        data = TrainingSet(
            speakers=vectors,
            speaker_sex=sex,
            speaker_faces=torch.arange(drawn.shape[0] * drawn.shape[1]).view(drawn.shape[:2]),
            bank_rows=drawn.shape[0] * drawn.shape[1] + torch.arange(len(faces.rows)),
            bank_codes=face_axes.codes(faces.latents, faces.sex),
            bank_sex=torch.from_numpy(faces.sex),
            axes=voice_axes,
        )
        voice_head, face_head = new_heads(voice_axes, faces.descriptors, self.head_options.seed)
        views = images.view_descriptors(network, self.face_options.views, self.work, progress)
        self._train("heads", Encoders(voice_head, face_head), data, self.head_options, views, progress, report)
        face_encoder = FaceEncoder(network.requires_grad_(True), face_head)
        encoders = Encoders(voice_head, face_encoder)
        self._train("tune", encoders, data, self.tune_options, images.views, progress, report)
        rounded_to_float16(face_encoder)
        held_vectors = self._vectors(held_out, "held_out", progress)
        latent_map = self._map(voice_head.eval(), data, face_axes, crops)
        measured = self._finish(encoders, latent_map, faces, held_vectors, held_out)
        with torch.inference_mode():
            embeddings = voice_head(torch.from_numpy(crops.reshape(-1, crops.shape[-1])))
        names = [speaker.speaker for speaker in training for _ in range(CROPS)]
        return Trained(measured, list(zip(embeddings.clone(), names, strict=True)))

    def _vectors(self, speakers: list[Speaker], name: str, progress: Progress) -> SpeakerVectors:
        # Only training uses the recordings under conditions.
        return speaker_vectors(
            self.voices,
            speakers,
            CONDITIONS if name == "training" else {},
            lambda: fetch_ge2e(self.wheels),
            self.work / f"{name}_vectors.npz",
            progress(f"reading voices ({name.replace('_', ' ')})"),
        )

    def _faces(self, generator: MobileStyleGAN, network: DlibResNet, progress: Progress) -> Faces:
        """Draw the faces, label them, keep the adults, describe them, and measure their nuisances."""
        options = self.face_options
        head = hashlib.sha256(DEFAULT_HEAD.read_bytes()).hexdigest()
        cache = FaceCache(self.work, generator.optimise_size, f"wheel {WHEEL_SHA256[:16]}, head {head[:16]}")
        if cache.done < options.draws:
            cache.draw(compiled(generator), options.draws, progress("drawing faces"))
        images = cache.images[: options.draws]
        labels: FaceLabels = label_faces(images, self.work / "labels.npz", progress("labelling faces"))
        rows = labels.adults(options, options.draws)
        with torch.inference_mode():
            latents = generator.map(face_z(rows.tolist())).numpy()
        steps = progress("describing faces")
        parts = [_describe(network, images[rows[i : i + _BATCH]]) for i in steps(range(0, len(rows), _BATCH))]
        steps = progress("measuring faces")
        sex = labels.sex[rows].astype(np.int64)
        values = np.column_stack([nuisances(images[rows[i]] for i in steps(range(len(rows)))), labels.age[rows], sex])
        return Faces(
            images,
            rows,
            sex,
            latents,
            np.concatenate(parts),
            predictive_directions(latents, (values - values.mean(0)) / values.std(0), HOLD_RIDGE),
        )

    def _speaker_faces(
        self,
        generator: MobileStyleGAN,
        faces: Faces,
        axes: FaceAxes,
        codes: NDArray[np.float64],
        sex: NDArray[np.int64],
        progress: Progress,
    ) -> NDArray[np.uint8]:
        """Draw the faces of each speaker's code, uint8 [S, n, 256, 256, 3]: one plain, others with other looks."""
        options = self.face_options
        bank_codes = axes.codes(faces.latents, faces.sex)
        rest = faces.latents - axes.latents(bank_codes, faces.sex)
        rng = np.random.Generator(np.random.Philox(self.head_options.seed))
        latents = np.repeat(axes.latents(codes, sex)[:, None], options.per_speaker, axis=1)
        for i, each in enumerate(sex.tolist()):
            others = rng.choice(np.flatnonzero(faces.sex == each), options.per_speaker - 1)
            latents[i, 1:] += options.other_looks * rest[others]
        drawn = np.empty((len(codes), options.per_speaker, *faces.images.shape[1:]), np.uint8)
        with torch.inference_mode():
            for i in progress("drawing the speakers' faces")(range(len(codes))):
                pixels = generator(torch.from_numpy(latents[i].astype(np.float32)), []).clamp(-1, 1)
                drawn[i] = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        return drawn

    def _train(
        self,
        name: str,
        model: Encoders,
        data: TrainingSet,
        options: TrainOptions,
        views_of: ViewsOf,
        progress: Progress,
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

    def _map(self, head: VoiceHead, data: TrainingSet, axes: FaceAxes, crops: NDArray[np.float32]) -> Any:
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
        self, encoders: Encoders, latent_map: Any, faces: Faces, held_vectors: SpeakerVectors, held_out: list[Speaker]
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


class _Images:
    """The images of all identities: those of the speakers, then the bank's."""

    def __init__(self, speakers: NDArray[np.uint8], faces: Faces) -> None:
        self._speakers, self._faces = speakers, faces
        self._augment = FaceAugmentation()

    def __len__(self) -> int:
        return len(self._speakers) + len(self._faces.rows)

    def plain(self, rows: Tensor) -> Tensor:
        """Images [n, 3, 256, 256] in [-1, 1]."""
        count = len(self._speakers)
        picked = [
            self._speakers[row] if row < count else self._faces.images[self._faces.rows[row - count]]
            for row in rows.tolist()
        ]
        return torch.from_numpy(np.stack(picked)).permute(0, 3, 1, 2).float() / 127.5 - 1

    def views(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Random views of the images, of the same shape."""
        images = self.plain(rows)
        return self._augment(images, images.shape[-1], generator)

    def view_descriptors(self, network: DlibResNet, count: int, work: Path, progress: Progress) -> ViewsOf:
        """Descriptors of `count` views of each image, the first of which is the image itself; cached in `work`."""
        path = work / "descriptors.npz"
        key = hashlib.sha256(np.ascontiguousarray(self._speakers).data)
        key.update(np.array([count, *self._faces.rows]).tobytes())
        if path.is_file():
            with np.load(path, allow_pickle=False) as stored:
                described = stored["descriptors"] if str(stored["key"]) == key.hexdigest() else None
        else:
            described = None
        if described is None:
            described = self._describe_views(network, count, progress("describing views of faces"))
            np.savez(path, key=key.hexdigest(), descriptors=described)
        table = torch.from_numpy(described)

        def views_of(rows: Tensor, generator: torch.Generator) -> Tensor:
            return table[rows, torch.randint(count, (len(rows),), generator=generator)]

        return views_of

    @torch.inference_mode()
    def _describe_views(self, network: DlibResNet, count: int, progress: StepProgress) -> NDArray[np.float32]:
        described = np.empty((len(self), count, network.embedding_dim), np.float32)
        for first in progress(range(0, len(self), _BATCH)):
            rows = torch.arange(first, min(first + _BATCH, len(self)))
            for view in range(count):
                images = self.views(rows, keyed_generator(Draw.ITEM, first, view)) if view else self.plain(rows)
                described[rows.numpy(), view] = network(network.crop(images)).numpy()
        return described


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


@torch.inference_mode()
def _describe(network: DlibResNet, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return network(network.crop(pixels)).numpy()


def _sex_of(speakers: list[Speaker]) -> Tensor:
    return torch.tensor([SEXES.index(speaker.sex) for speaker in speakers])
