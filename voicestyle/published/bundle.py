"""Build a bundle from published files. All files are read and cross-checked before anything is written."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import cast

import torch

from cmpc2 import ResNetConfig
from cmpc2.checkpoint import load
from cmpc2.memory import read_memory
from voicestyle.bundle import sha256, write_bundle
from voicestyle.engine import Generator
from voicestyle.errors import BundleError
from voicestyle.generators import StyleGAN2, StyleGAN2Contents, latent_std, read_stylegan2
from voicestyle.inverted_latents import read_latents
from voicestyle.latent_embeddings import Progress, embed_latents
from voicestyle.manifest import INSTANCE_CHOICES, Manifest
from voicestyle.published.bank import Bank, make_bank

NAME = "published"
OPTIMISE_SIZE = 256  # the published code pools larger images to this size
NEAREST_PROTOTYPES = 3
INSTANCES = 8
LEARNING_RATE = 0.01
STEPS = 100

CARD = (
    "Made from published checkpoints of CMPC and StyleGAN2. A face is a guess about a voice, never a portrait of its "
    "speaker. The latent bank derives from photos of known people: answers name none of them. "
    "Do not use it to say anything about anyone."
)
LICENCE = (
    "Code Apache-2.0. The weights, the memory and the latents have the licences of those who published them, "
    "StyleGAN2 and FFHQ allow non-commercial use only: see docs/checkpoints.md."
)


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
    _check_sizes(files.memory, files.stylegan, options, bank.centroids.shape[1], generator)
    _check_bank(files, bank, generator)
    encoders = load(files.cmpc, options.encoders, options.encoders)
    digests = {item.name: sha256(getattr(files, item.name)) for item in fields(files)}
    embeddings = None
    if options.instance_choice != "first":
        device = torch.device(options.device)
        embeddings = embed_latents(
            cast(Generator, generator.to(device)),
            encoders.face_subnet.to(device),
            bank.latents,
            image_size=image_size,
            encoder_size=options.encoder_size,
            device=device,
            progress=progress,
        )
        generator.cpu()
        encoders.face_subnet.cpu()
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


def check_published_files(cmpc: Path, memory: Path, csv: Path, stylegan: Path, options: PublishedOptions) -> None:
    """Check all files but the latents, before these are made. Raises what `build_published_bundle` raises."""
    centroids = read_memory(memory, csv, options.level).centroids
    _check_sizes(memory, stylegan, options, centroids.shape[1], read_stylegan2(stylegan)[0])
    load(cmpc, options.encoders, options.encoders)


def _check_sizes(memory: Path, stylegan: Path, options: PublishedOptions, dim: int, generator: StyleGAN2) -> None:
    size = min(OPTIMISE_SIZE, generator.optimise_size)
    _require(
        {
            f"{memory}: a centroid must have the {options.encoders.embedding_dim} components of an embedding": (
                dim == options.encoders.embedding_dim,
                dim,
            ),
            f"{stylegan}: the generator's images must have at least the face encoder's {options.encoder_size} pixels "
            f"(at most {OPTIMISE_SIZE})": (size >= options.encoder_size, generator.optimise_size),
        }
    )


def _check_bank(files: PublishedFiles, bank: Bank, generator: StyleGAN2) -> None:
    rules = {
        f"{files.latents}: latents must be the generator's w [{generator.latent_dim}] or "
        f"w+ [{generator.latent_rows}, {generator.latent_dim}]": (
            bank.latents.shape[1:] in ((generator.latent_dim,), (generator.latent_rows, generator.latent_dim)),
            list(bank.latents.shape[1:]),
        ),
        f"{files.memory}: a level must have at least {NEAREST_PROTOTYPES} prototypes with latents": (
            len(bank.centroids) >= NEAREST_PROTOTYPES,
            len(bank.centroids),
        ),
    }
    _require(rules)


def _require(rules: Mapping[str, tuple[bool, object]]) -> None:
    for rule, (holds, received) in rules.items():
        if not holds:
            raise BundleError(f"{rule}; got {received}")


def _version(digests: dict[str, str], options: PublishedOptions) -> str:
    """A short hash of the bundle's sources and options."""
    sources = {**digests, **asdict(options), "device": ""}
    return hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()[:12]
