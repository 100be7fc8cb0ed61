"""The generated faces of the demo's training: those of the bank, those of the speakers, and random views of both."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voicestyle.face_networks import DlibResNet
from voicestyle.generators import DEFAULT_HEAD, WHEEL_SHA256, MobileStyleGAN, face_z
from voicestyle.latent_prior import predictive_directions
from voicestyle.training.augment_faces import FaceAugmentation
from voicestyle.training.batches import ViewsOf
from voicestyle.training.faces import FaceCache, Progress, StageProgress, compiled
from voicestyle.training.labels import FaceLabels, label_faces
from voicestyle.training.nuisances import nuisances
from voicestyle.training.options import FaceOptions
from voicestyle.training.pairing import FaceAxes
from voicestyle.training.randomness import Draw, keyed_generator
from voicestyle.whole_files import whole_file

HOLD_RIDGE = 0.1  # see `predictive_directions`
_BATCH = 16


@dataclass(frozen=True)
class Faces:
    """The drawn faces, and the N adults of them that form the bank.

    images: uint8 [draws, 256, 256, 3]. rows: int64 [N], those of the bank, which are seeds. sex: int64 [N], 0 for F and
    1 for M. latents, descriptors: float32 [N, D] and [N, F]. directions: float32 [H, D] that predict `nuisances.NAMES`,
    age and sex.
    """

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]
    sex: NDArray[np.int64]
    latents: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    directions: NDArray[np.float32]


def bank_faces(
    generator: MobileStyleGAN, network: DlibResNet, options: FaceOptions, work: Path, progress: StageProgress
) -> Faces:
    """Draw faces, label them, keep the adults, describe them, and measure their nuisances.

    Images and labels are stored in `work` and reused. Raises TrainingDataError for images of another generator there,
    and if too few adults remain.
    """
    head = hashlib.sha256(DEFAULT_HEAD.read_bytes()).hexdigest()
    cache = FaceCache(work, generator.optimise_size, f"wheel {WHEEL_SHA256[:16]}, head {head[:16]}")
    if cache.done < options.draws:
        cache.draw(compiled(generator), options.draws, progress("drawing faces"))
    images = cache.images[: options.draws]
    labels: FaceLabels = label_faces(images, work / "labels.npz", progress("labelling faces"))
    rows = labels.adults(options, options.draws)
    with torch.inference_mode():
        latents = generator.map(face_z(rows.tolist())).numpy()
        steps = progress("describing faces")(range(0, len(rows), _BATCH))
        pixels = (_to_images(images[rows[i : i + _BATCH]]) for i in steps)
        descriptors = np.concatenate([network(network.crop(each)).numpy() for each in pixels])
    sex = labels.sex[rows].astype(np.int64)
    measured = nuisances(images[rows[i]] for i in progress("measuring faces")(range(len(rows))))
    values = np.column_stack([measured, labels.age[rows], sex])
    directions = predictive_directions(latents, (values - values.mean(0)) / values.std(0), HOLD_RIDGE)
    return Faces(images, rows, sex, latents, descriptors, directions)


def speaker_latents(
    faces: Faces,
    axes: FaceAxes,
    codes: NDArray[np.float64],
    sex: NDArray[np.int64],
    options: FaceOptions,
    seed: int,
) -> NDArray[np.float32]:
    """Latents [S, n, D] of the n faces of each speaker's code [S, K] and sex [S]: one plain, n − 1 with other looks.

    Other looks are what random faces of the bank of the same sex have besides their code.
    """
    rest = faces.latents - axes.latents(axes.codes(faces.latents, faces.sex), faces.sex)
    rng = np.random.Generator(np.random.Philox(seed))
    latents = np.repeat(axes.latents(codes, sex)[:, None], options.per_speaker, axis=1)
    for i, each in enumerate(sex.tolist()):
        others = rng.choice(np.flatnonzero(faces.sex == each), options.per_speaker - 1)
        latents[i, 1:] += options.other_looks * rest[others]
    return latents.astype(np.float32)


@torch.inference_mode()
def draw_images(generator: MobileStyleGAN, latents: NDArray[np.float32], progress: Progress) -> NDArray[np.uint8]:
    """Images uint8 [S · n, 256, 256, 3] of latents [S, n, D], in their order."""
    parts: list[NDArray[np.uint8]] = []
    for i in progress(range(len(latents))):
        pixels = generator(torch.from_numpy(latents[i]), []).clamp(-1, 1)
        parts.append(((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


class FaceImages:
    """The images of all identities by row: those of the speakers, uint8 [P, 256, 256, 3], then the bank's."""

    def __init__(self, speakers: NDArray[np.uint8], faces: Faces) -> None:
        self.of_speakers = len(speakers)
        self._speakers, self._faces = speakers, faces
        self._augment = FaceAugmentation()

    def __len__(self) -> int:
        return self.of_speakers + len(self._faces.rows)

    def plain(self, rows: Tensor) -> Tensor:
        """The images in rows int64 [n], float32 [n, 3, 256, 256] in [-1, 1]."""
        return _to_images(np.stack(list(self._pixels(rows.tolist()))))

    def views(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Random views of the images, of the same shape."""
        images = self.plain(rows)
        return self._augment(images, images.shape[-1], generator)

    def view_descriptors(self, network: DlibResNet, count: int, cache: Path, progress: Progress) -> ViewsOf:
        """Descriptors of `count` views of each image, the first of which is the image itself.

        They are stored in `cache` (.npz) and reused for the same images.
        """
        key = self._key(count)
        if (described := _stored(cache, key)) is None:
            described = np.empty((len(self), count, network.embedding_dim), np.float32)
            for first in progress(range(0, len(self), _BATCH)):
                rows = torch.arange(first, min(first + _BATCH, len(self)))
                for view in range(count):
                    generator = keyed_generator(Draw.ITEM, first, view)
                    images = self.views(rows, generator) if view else self.plain(rows)
                    with torch.inference_mode():
                        described[rows.numpy(), view] = network(network.crop(images)).numpy()
            with whole_file(cache) as draft, draft.open("wb") as file:
                np.savez(file, key=np.array(key), descriptors=described)
        table = torch.from_numpy(described)

        def views_of(rows: Tensor, generator: torch.Generator) -> Tensor:
            return table[rows, torch.randint(count, (len(rows),), generator=generator)]

        return views_of

    def _pixels(self, rows: list[int]) -> Iterator[NDArray[np.uint8]]:
        for row in rows:
            if row < self.of_speakers:
                yield self._speakers[row]
            else:
                yield self._faces.images[self._faces.rows[row - self.of_speakers]]

    def _key(self, count: int) -> str:
        digest = hashlib.sha256(f"{count} {self._augment}".encode())
        for image in self._pixels(list(range(len(self)))):
            digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()


def _stored(cache: Path, key: str) -> NDArray[np.float32] | None:
    if not cache.is_file():
        return None
    with np.load(cache, allow_pickle=False) as stored:
        return stored["descriptors"] if str(stored["key"]) == key else None


def _to_images(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, H, W, 3] to float32 [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
