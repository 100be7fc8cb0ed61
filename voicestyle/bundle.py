"""Read and write bundles: folders with the networks, prototypes and latents of the pipeline (docs/bundle.md)."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from msgspec import structs
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import nn

from cmpc2.resnet import ResNet, fold_batch_norm
from voicestyle import torchscript
from voicestyle.errors import BundleError
from voicestyle.latent_bank import LatentBank
from voicestyle.manifest import EMBEDDINGS, MANIFEST, MAPPER, Manifest
from voicestyle.prototypes import Prototypes

NETWORKS = ("voice_encoder.pt", "face_encoder.pt", "generator.pt")
GENERATOR_INTERFACE = ("map", "render", "latent_dim", "latent_rows", "optimise_size", "sizes", "noise_shapes")

Part = TypeVar("Part")
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True)
class Bundle:
    """The loaded parts of a bundle, with its networks on one device; `mapper` is None where it has none."""

    manifest: Manifest
    voice_encoder: torchscript.CompiledModule
    face_encoder: torchscript.CompiledModule
    generator: torchscript.CompiledModule
    prototypes: Prototypes
    latent_bank: LatentBank
    mapper: torchscript.CompiledModule | None = None

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "Bundle":
        """Verify all files of a bundle folder, then load them.

        dtype: of the generator and the face encoder; the voice encoder uses float32. Latents and face embeddings are
        memory-mapped.

        Raises:
            BundleError: a missing, altered or invalid file, or parts that do not match each other.
        """
        manifest = Manifest.read(folder)
        verify_files(folder, manifest)
        has_embeddings = EMBEDDINGS in manifest.file_names
        bundle = cls(
            manifest,
            voice_encoder=_load(torchscript.load, folder / "voice_encoder.pt", device),
            face_encoder=_load(torchscript.load, folder / "face_encoder.pt", device, dtype),
            generator=_load(torchscript.load, folder / "generator.pt", device, dtype, keep=GENERATOR_INTERFACE),
            prototypes=_load(Prototypes.read, folder / "prototypes.faiss"),
            latent_bank=LatentBank(
                _load(open_memmap, folder / "latent_bank.npy", "r"),
                np.array(_load(open_memmap, folder / "assignments.npy", "r")),
                _load(open_memmap, folder / EMBEDDINGS, "r") if has_embeddings else None,
            ),
            mapper=_load(torchscript.load, folder / MAPPER, device) if manifest.mapper else None,
        )
        bundle.check_shapes()
        return bundle

    def check_shapes(self) -> None:
        """Raise BundleError unless all parts have the sizes given in the manifest."""
        manifest, generator, embeddings = self.manifest, self.generator, self.latent_bank.embeddings
        found = {
            "latent_dim of the generator": (generator.latent_dim, manifest.latent_dim),
            "shape of the latents in latent_bank.npy": (self.latent_bank.latents.shape[1:], manifest.latent_shape),
            "embedding_dim of prototypes.faiss": (self.prototypes.dim, manifest.embedding_dim),
            f"embedding_dim of {EMBEDDINGS}": (
                manifest.embedding_dim if embeddings is None else embeddings.shape[1],
                manifest.embedding_dim,
            ),
            "prototypes of prototypes.faiss": (len(self.prototypes), manifest.prototypes),
            "sizes of the generator": (tuple(generator.sizes), manifest.sizes),
        }
        if manifest.latent_rows is not None:
            found["latent_rows of the generator"] = (generator.latent_rows, manifest.latent_rows)
        for name, (received, expected) in found.items():
            if received != expected:
                raise BundleError(f"{name} must be {expected} as in {MANIFEST}, got {received}")
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
                f"the number of prototypes without an image must be {manifest.empty_prototypes} as in {MANIFEST}, "
                f"got {len(unused)}"
            )
        if unknown := used - set(range(manifest.prototypes)):
            raise BundleError(f"assignments.npy must be in 0 … {manifest.prototypes - 1}, got {max(unknown)}")

    def nearest_prototypes(self, embedding: NDArray[np.float32]) -> list[int]:
        """The `manifest.nearest` prototypes nearest to an embedding [E], nearest first.

        As published, they may include prototypes without images. If none of them has an image, the nearest prototype
        that has one is added.
        """
        found = self.prototypes.nearest(embedding, self.manifest.nearest)
        if not self.latent_bank.holds(found):
            # One more than the number of empty prototypes, so that at least one is not empty.
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
    mapper: nn.Module | None = None,
) -> None:
    """Compile the modules and write a bundle folder. An existing folder is replaced after the new one was loaded once.

    centroids: [K, E]. latents: [N, D] or [N, L, D]. assignments: [N]. embeddings: [N, E], unless `instance_choice` is
    `first`. mapper: where the manifest's `mapper` is true. The hashes in `manifest.files` are set.

    Raises:
        BundleError: parts that do not match each other; nothing is written.
    """

    def write_networks(draft: Path) -> None:
        torchscript.save(fold_batch_norm(voice_encoder), draft / "voice_encoder.pt")
        torchscript.save(fold_batch_norm(face_encoder), draft / "face_encoder.pt")
        torchscript.save(generator, draft / "generator.pt")
        if mapper is not None:
            torchscript.save(mapper, draft / MAPPER)

    _write(folder, manifest, write_networks, centroids, latents, assignments, embeddings)


def write_with_other_bank(
    folder: Path,
    base: Path,
    manifest: Manifest,
    *,
    centroids: NDArray[np.float32],
    latents: NDArray[np.float32],
    assignments: NDArray[np.int32],
    embeddings: NDArray[np.floating] | None = None,
) -> None:
    """Write a bundle folder with the compiled networks of the bundle `base`, byte by byte, and another bank.

    Arguments, replacement and errors are those of `write_bundle`.
    """

    def copy_networks(draft: Path) -> None:
        for name in NETWORKS:
            shutil.copy(base / name, draft / name)

    _write(folder, manifest, copy_networks, centroids, latents, assignments, embeddings)


def _write(
    folder: Path,
    manifest: Manifest,
    write_networks: Callable[[Path], None],
    centroids: NDArray[np.float32],
    latents: NDArray[np.float32],
    assignments: NDArray[np.int32],
    embeddings: NDArray[np.floating] | None,
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as parent:
        draft = Path(parent) / folder.name
        draft.mkdir()
        write_networks(draft)
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
    """Raise BundleError unless `folder` contains all files of its manifest, each with its sha256."""
    if missing := set(manifest.file_names) - set(manifest.files):
        raise BundleError(f"{folder / MANIFEST} must give a sha256 for {', '.join(sorted(missing))}")
    for name, expected in manifest.files.items():
        path = folder / name
        if name not in manifest.file_names:
            raise BundleError(f"{folder / MANIFEST} lists {name!r}, which is not a file of this bundle")
        if not path.is_file():
            raise BundleError(f"{path} is missing")
        if (actual := sha256(path)) != expected:
            raise BundleError(f"{path} was altered: sha256 must be {expected}, got {actual}")


def _load(
    reader: Callable[Concatenate[Path, Arguments], Part], path: Path, *args: Arguments.args, **options: Arguments.kwargs
) -> Part:
    try:
        return reader(path, *args, **options)
    except Exception as error:  # invalid files raise many different exceptions
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise BundleError(f"cannot load {path}: {reason}") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
