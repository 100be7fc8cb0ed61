"""Build a bundle from published files. All files are read and cross-checked before anything is written."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cmpc2 import ResNetConfig
from cmpc2.checkpoint import load
from cmpc2.memory import read_memory
from voicestyle.bundle import sha256, write_bundle
from voicestyle.engine import encoder_input
from voicestyle.errors import BundleError
from voicestyle.generators import StyleGAN2, StyleGAN2Contents, latent_std, read_stylegan2
from voicestyle.manifest import INSTANCE_CHOICES, Manifest
from voicestyle.published.bank import Bank, make_bank
from voicestyle.published.latents import read_latents

NAME = "published"
OPTIMISE_SIZE = 256  # the published code pools larger images to this size
NEAREST_PROTOTYPES = 3
INSTANCES = 8
LEARNING_RATE = 0.01
STEPS = 100
EMBED_BATCH = 8
EMBED_SEED = 0  # of the noise maps, which are the same for all images

CARD = (
    "Made from published checkpoints of CMPC and StyleGAN2. A face is a guess about a voice, never a portrait of its "
    "speaker. The latent bank derives from photos of known people: answers name none of them. "
    "Do not use it to say anything about anyone."
)
LICENCE = (
    "Code Apache-2.0. The weights, the memory and the latents have the licences of those who published them, "
    "StyleGAN2 and FFHQ allow non-commercial use only: see docs/checkpoints.md."
)

Progress = Callable[[range], Iterable[int]]


@dataclass(frozen=True)
class PublishedFiles:
    """Paths of the CMPC checkpoint, the prototype memory, its CSV, the StyleGAN2 checkpoint and the latents."""

    cmpc: Path
    memory: Path
    csv: Path
    stylegan: Path
    latents: Path


@dataclass(frozen=True)
class PublishedOptions:
    """Options of the build.

    level: the memory's level, by its number of prototypes. encoder_size: input size of the face encoder in pixels.
    instance_choice: as in bundle.json; `nearest` and `weighted` need the face embedding of every latent. device: for
    these embeddings. encoders: size of both encoders in the checkpoint.
    """

    level: int = 1000
    encoder_size: int = 256
    instance_choice: str = "first"
    device: str = "cpu"
    encoders: ResNetConfig = field(default_factory=ResNetConfig)

    def __post_init__(self) -> None:
        if self.encoder_size < 32:
            raise BundleError(f"encoder_size must be at least 32 pixels, got {self.encoder_size}")
        if self.instance_choice not in INSTANCE_CHOICES:
            choices = ", ".join(INSTANCE_CHOICES)
            raise BundleError(f"instance_choice must be one of {choices}, got {self.instance_choice}")


@dataclass(frozen=True)
class Built:
    """A written bundle: its manifest and a summary of its sources."""

    manifest: Manifest
    contents: StyleGAN2Contents
    bank: Bank

    def __str__(self) -> str:
        bank = self.bank
        return (
            f"{len(bank.latents)} latents, {len(bank.centroids)} prototypes\n"
            f"{bank.videos_without_latent} videos without latent, {bank.latents_without_video} latents without video\n"
            f"{bank.dropped} prototypes dropped because none of their videos has a latent, "
            f"{bank.empty} prototypes without videos kept\n{self.contents}"
        )


def build_published_bundle(
    folder: Path,
    files: PublishedFiles,
    options: PublishedOptions = PublishedOptions(),
    progress: Progress = iter,
) -> Built:
    """Write a bundle folder, replacing an existing one at the end.

    progress: wraps the range of batches of images to embed, as `tqdm` does.

    Raises, before anything is written:
        OSError: a path that cannot be opened.
        CheckpointError: an invalid file.
        BundleError: files that do not match each other.
    """
    bank = make_bank(read_memory(files.memory, files.csv, options.level), read_latents(files.latents))
    generator, contents = read_stylegan2(files.stylegan)
    image_size = min(OPTIMISE_SIZE, contents.config.size)
    _check(files, options, bank, generator, image_size)
    encoders = load(files.cmpc, options.encoders, options.encoders)
    digests = {item.name: sha256(getattr(files, item.name)) for item in fields(files)}
    embeddings = None
    if options.instance_choice != "first":
        embeddings = embed_latents(generator, encoders.face_subnet, bank.latents, image_size, options, progress)
    manifest = Manifest(
        name=NAME,
        version=_version(digests, options),
        licence=LICENCE,
        sources=tuple(f"{name}: {getattr(files, name).name}, sha256 {digest}" for name, digest in digests.items()),
        card=CARD,
        image_size=image_size,
        encoder_size=options.encoder_size,
        sizes=tuple(generator.sizes),
        embedding_dim=options.encoders.embedding_dim,
        latent_dim=generator.latent_dim,
        latent_rows=None if bank.latents.ndim == 2 else bank.latents.shape[1],
        latent_std=latent_std(generator),
        prototypes=len(bank.centroids),
        prototype_level=options.level,
        nearest=NEAREST_PROTOTYPES,
        instances=INSTANCES,
        instance_choice=options.instance_choice,
        learning_rate=LEARNING_RATE,
        default_steps=STEPS,
        default_seed=0,
        default_size=contents.config.size,
        empty_prototypes=bank.empty,
    )
    write_bundle(
        folder,
        manifest,
        voice_encoder=encoders.voice_subnet,
        face_encoder=encoders.face_subnet,
        generator=generator,
        centroids=bank.centroids,
        latents=bank.latents,
        assignments=bank.assignments,
        embeddings=embeddings,
    )
    return Built(manifest, contents, bank)


def embed_latents(
    generator: StyleGAN2,
    face_encoder: nn.Module,
    latents: NDArray[np.float32],
    image_size: int,
    options: PublishedOptions,
    progress: Progress = iter,
) -> NDArray[np.float32]:
    """Compute the face embedding [N, E] of each latent's image. All use the same noise maps. Slow on a CPU."""
    source = torch.Generator().manual_seed(EMBED_SEED)
    device = torch.device(options.device)
    noise = [torch.randn(1, 1, *shape, generator=source).to(device) for shape in generator.noise_shapes]
    generator.to(device)
    face_encoder.to(device)
    parts: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for start in progress(range(0, len(latents), EMBED_BATCH)):
            w = torch.from_numpy(latents[start : start + EMBED_BATCH]).to(device)
            images = encoder_input(generator(w, noise), image_size, options.encoder_size)
            parts.append(face_encoder(images).cpu().numpy())
    generator.cpu()
    face_encoder.cpu()
    return np.concatenate(parts)


def _check(files: PublishedFiles, options: PublishedOptions, bank: Bank, generator: StyleGAN2, image_size: int) -> None:
    rules = {
        f"{files.latents}: latents must be the generator's w [{generator.latent_dim}] or "
        f"w+ [{generator.latent_rows}, {generator.latent_dim}]": (
            bank.latents.shape[1:] in ((generator.latent_dim,), (generator.latent_rows, generator.latent_dim)),
            list(bank.latents.shape[1:]),
        ),
        f"{files.memory}: a centroid must have the {options.encoders.embedding_dim} components of an embedding": (
            bank.centroids.shape[1] == options.encoders.embedding_dim,
            bank.centroids.shape[1],
        ),
        f"{files.stylegan}: the generator's images must have at least the face encoder's {options.encoder_size} pixels "
        f"(at most {OPTIMISE_SIZE})": (image_size >= options.encoder_size, generator.optimise_size),
        f"{files.memory}: a level must have at least {NEAREST_PROTOTYPES} prototypes with latents": (
            len(bank.centroids) >= NEAREST_PROTOTYPES,
            len(bank.centroids),
        ),
    }
    for rule, (holds, received) in rules.items():
        if not holds:
            raise BundleError(f"{rule}; got {received}")


def _version(digests: dict[str, str], options: PublishedOptions) -> str:
    """A short hash of the bundle's sources and options."""
    sources = {**digests, **asdict(options), "device": ""}
    return hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()[:12]
