"""A bundle: the folder that holds all that a voice needs to become a face, checked whole before use."""

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from msgspec import structs
from numpy.typing import NDArray
from torch import nn

from cmpc2.resnet import ResNet, fold_batch_norm
from voicestyle import torchscript
from voicestyle.errors import BundleError
from voicestyle.latent_bank import LatentBank
from voicestyle.manifest import EMBEDDINGS, MANIFEST, Manifest
from voicestyle.prototypes import Prototypes

GENERATOR_INTERFACE = ("map", "render", "latent_dim", "optimise_size", "sizes", "noise_shapes")


@dataclass(frozen=True)
class Bundle:
    """The loaded parts of a bundle, on one device."""

    manifest: Manifest
    voice_encoder: torchscript.CompiledModule
    face_encoder: torchscript.CompiledModule
    generator: torchscript.CompiledModule
    prototypes: Prototypes
    latent_bank: LatentBank

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "Bundle":
        """Check a bundle folder whole, then load it; the face's networks compute in `dtype`, the voice's in float32.

        Raises:
            BundleError: a missing or altered file, or parts that do not fit each other.
        """
        manifest = Manifest.read(folder)
        verify_files(folder, manifest)
        bundle = cls(
            manifest,
            voice_encoder=torchscript.load(folder / "voice_encoder.pt", device),
            face_encoder=torchscript.load(folder / "face_encoder.pt", device, dtype),
            generator=torchscript.load(folder / "generator.pt", device, dtype, keep=GENERATOR_INTERFACE),
            prototypes=Prototypes.read(folder / "prototypes.faiss"),
            latent_bank=LatentBank.read(
                folder / "latent_bank.npy",
                folder / "assignments.npy",
                folder / EMBEDDINGS if EMBEDDINGS in manifest.file_names else None,
            ),
        )
        bundle.check_shapes()
        return bundle

    def check_shapes(self) -> None:
        """Raise BundleError where a part does not have the size that the manifest says."""
        manifest, generator, embeddings = self.manifest, self.generator, self.latent_bank.embeddings
        found = {
            "latent_dim of the generator": (generator.latent_dim, manifest.latent_dim),
            "latent_dim of latent_bank.npy": (self.latent_bank.latents.shape[1], manifest.latent_dim),
            "embedding_dim of prototypes.faiss": (self.prototypes.dim, manifest.embedding_dim),
            f"embedding_dim of {EMBEDDINGS}": (
                manifest.embedding_dim if embeddings is None else embeddings.shape[1],
                manifest.embedding_dim,
            ),
            "prototypes of prototypes.faiss": (len(self.prototypes), manifest.prototypes),
            "sizes of the generator": (tuple(generator.sizes), manifest.sizes),
        }
        for name, (is_, said) in found.items():
            if is_ != said:
                raise BundleError(f"{name} must be {said} as {MANIFEST} says, got {is_}")
        if generator.optimise_size < manifest.image_size:
            raise BundleError(
                f"image_size must be at most the {generator.optimise_size} pixels of the generator, "
                f"got {manifest.image_size}"
            )
        used = set(np.unique(self.latent_bank.assignments).tolist())
        unused = set(range(manifest.prototypes)) - used
        if unused and not manifest.empty_prototypes:
            raise BundleError(f"every prototype must have an image, got none for {sorted(unused)[:5]}")
        if len(unused) != manifest.empty_prototypes:
            raise BundleError(
                f"prototypes without an image must be {manifest.empty_prototypes} as {MANIFEST} says, got {len(unused)}"
            )
        if unknown := used - set(range(manifest.prototypes)):
            raise BundleError(f"assignments.npy must stay below {manifest.prototypes}, got {max(unknown)}")

    def nearest_prototypes(self, embedding: NDArray[np.float32]) -> list[int]:
        """The manifest's number of prototypes nearest to an embedding [E], nearest first.

        Prototypes without images count, as published. Where all of them are, the nearest that has one is added.
        """
        found = self.prototypes.nearest(embedding, self.manifest.nearest)
        if not self.latent_bank.holds(found):
            # One more than are empty: among them at least one is not.
            wider = self.prototypes.nearest(embedding, self.manifest.empty_prototypes + 1)
            found.append(next(prototype for prototype in wider if self.latent_bank.holds([prototype])))
        return found


def write_bundle(
    folder: Path,
    manifest: Manifest,
    *,
    voice_encoder: ResNet,
    face_encoder: ResNet,
    generator: nn.Module,
    centroids: NDArray[np.float32],
    latents: NDArray[np.float32],
    assignments: NDArray[np.int32],
    embeddings: NDArray[np.floating] | None = None,
) -> None:
    """Compile the modules and write a bundle folder; an older one at the same place is replaced at the end.

    centroids [K, E], latents [N, D], assignments [N], embeddings [N, E] where instances are chosen by nearness.
    `manifest.files` is filled in. The new folder is loaded once before it takes its place.

    Raises:
        BundleError: parts that do not fit each other; nothing is left behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as parent:
        draft = Path(parent) / folder.name
        draft.mkdir()
        torchscript.save(fold_batch_norm(voice_encoder), draft / "voice_encoder.pt")
        torchscript.save(fold_batch_norm(face_encoder), draft / "face_encoder.pt")
        torchscript.save(generator, draft / "generator.pt")
        Prototypes.from_centroids(centroids).write(draft / "prototypes.faiss")
        np.save(draft / "latent_bank.npy", latents.astype(np.float32))
        np.save(draft / "assignments.npy", assignments.astype(np.int32))
        if embeddings is not None:
            np.save(draft / EMBEDDINGS, embeddings.astype(np.float16))
        files = {path.name: sha256(path) for path in sorted(draft.iterdir())}
        (draft / MANIFEST).write_bytes(structs.replace(manifest, files=files).to_json())
        Bundle.load(draft)
        if folder.exists():
            folder.rename(Path(parent) / "replaced")
        shutil.move(draft, folder)


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Raise BundleError unless `folder` holds what its manifest calls for, each file with its sha256."""
    if missing := set(manifest.file_names) - set(manifest.files):
        raise BundleError(f"{folder / MANIFEST} must give a sha256 for {', '.join(sorted(missing))}")
    for name, expected in manifest.files.items():
        path = folder / name
        if name not in manifest.file_names:
            raise BundleError(f"{folder / MANIFEST} names {name!r}, which is no file of this bundle")
        if not path.is_file():
            raise BundleError(f"{path} is missing")
        if (actual := sha256(path)) != expected:
            raise BundleError(f"{path} was altered: sha256 must be {expected}, got {actual}")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
