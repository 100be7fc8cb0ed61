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

from cmpc2.log_mel import BANDS, MIN_FRAMES
from cmpc2.resnet import ResNet, fold_batch_norm
from voicestyle import torchscript
from voicestyle.errors import BundleError
from voicestyle.latent_bank import LatentBank
from voicestyle.latent_map import LatentMap
from voicestyle.latent_prior import LatentPrior
from voicestyle.manifest import EMBEDDINGS, FRONT_END, LATENT_MAP, LATENT_PRIOR, MANIFEST, MAPPER, Manifest
from voicestyle.network_checks import check_encoder, check_front_end, check_mapper
from voicestyle.prototypes import Prototypes

NETWORKS = ("voice_encoder.pt", "face_encoder.pt", "generator.pt")
GENERATOR_INTERFACE = ("map", "render", "latent_dim", "latent_rows", "optimise_size", "sizes", "noise_shapes")

Part = TypeVar("Part")
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True)
class Bundle:
    """The loaded parts of a bundle, with its networks on one device. Optional parts are None where it has none."""

    manifest: Manifest
    voice_encoder: torchscript.CompiledModule
    face_encoder: torchscript.CompiledModule
    generator: torchscript.CompiledModule
    prototypes: Prototypes
    latent_bank: LatentBank
    front_end: torchscript.CompiledModule | None = None
    latent_map: LatentMap | None = None
    latent_prior: LatentPrior | None = None
    mapper: torchscript.CompiledModule | None = None
    dtype: torch.dtype = torch.float32  # of the convolutions of the generator and the face encoder

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "Bundle":
        """Verify all files of a bundle folder, then load them.

        dtype: of the generator and the face encoder; the other networks use float32. Latents and face embeddings are
        memory-mapped.

        Raises:
            BundleError: a missing, altered or invalid file, or parts that do not match each other.
        """
        manifest = Manifest.read(folder)
        verify_files(folder, manifest)
        present = set(manifest.file_names)
        bundle = cls(
            manifest,
            voice_encoder=_load(torchscript.load, folder / "voice_encoder.pt", device),
            face_encoder=_load(torchscript.load, folder / "face_encoder.pt", device, dtype),
            generator=_load(torchscript.load, folder / "generator.pt", device, dtype, keep=GENERATOR_INTERFACE),
            prototypes=_load(Prototypes.read, folder / "prototypes.faiss"),
            latent_bank=LatentBank(
                _load(open_memmap, folder / "latent_bank.npy", "r"),
                np.array(_load(open_memmap, folder / "assignments.npy", "r")),
                _load(open_memmap, folder / EMBEDDINGS, "r") if EMBEDDINGS in present else None,
            ),
            front_end=_load(torchscript.load, folder / FRONT_END, device) if FRONT_END in present else None,
            latent_map=LatentMap.read(folder / LATENT_MAP) if LATENT_MAP in present else None,
            latent_prior=LatentPrior.read(folder / LATENT_PRIOR) if LATENT_PRIOR in present else None,
            mapper=_load(torchscript.load, folder / MAPPER, device) if MAPPER in present else None,
            dtype=dtype,
        )
        bundle.check_shapes(device)
        return bundle

    def check_shapes(self, device: torch.device | str = "cpu") -> None:
        """Raise BundleError unless all parts have the sizes given in the manifest, and optional networks run.

        device: that of the networks.
        """
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
        if self.latent_map is not None:
            shape = (*manifest.latent_shape, manifest.embedding_dim)
            found[f"shape of a group's weight in {LATENT_MAP}"] = (self.latent_map.weight.shape[1:], shape)
            found[f"prototypes of {LATENT_MAP}"] = (len(self.latent_map.groups), manifest.prototypes)
        if self.latent_prior is not None:
            found[f"latent_dim of {LATENT_PRIOR}"] = (self.latent_prior.whitening.shape[-1], manifest.latent_dim)
        for name, (received, expected) in found.items():
            if received != expected:
                raise BundleError(f"{name} must be {expected} as in {MANIFEST}, got {received}")
        prior, latent_prior = manifest.prior, self.latent_prior
        if prior is not None and latent_prior is not None and prior.hold and not len(latent_prior.held):
            raise BundleError(f"hold of the prior needs held directions in {LATENT_PRIOR}, got none")
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
        if self.front_end is not None:
            check_front_end(
                self.front_end,
                self.voice_encoder,
                embedding_dim=manifest.embedding_dim,
                min_speech_seconds=manifest.limits.min_speech_seconds,
                device=device,
            )
        if self.mapper is not None:
            latent = torch.from_numpy(self.latent_bank.latents[:1].copy()).to(device)
            check_mapper(self.mapper, latent, manifest.embedding_dim)

    def check_encoders(self) -> None:
        """Raise BundleError unless both encoders, on the CPU, return embeddings of the size given in the manifest."""
        manifest, size = self.manifest, self.manifest.encoder_size
        if self.front_end is None:  # else `check_shapes` has run the voice encoder
            log_mel = torch.zeros(1, 1, BANDS, MIN_FRAMES)
            check_encoder("voice_encoder.pt", self.voice_encoder, log_mel, manifest.embedding_dim)
        check_encoder("face_encoder.pt", self.face_encoder, torch.zeros(1, 3, size, size), manifest.embedding_dim)

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
    voice_encoder: nn.Module,
    face_encoder: nn.Module,
    generator: nn.Module,
    centroids: NDArray[np.float32],
    latents: NDArray[np.float32],
    assignments: NDArray[np.int32],
    embeddings: NDArray[np.floating] | None = None,
    front_end: nn.Module | None = None,
    latent_map: LatentMap | None = None,
    latent_prior: LatentPrior | None = None,
    mapper: nn.Module | None = None,
) -> None:
    """Compile the modules and write a bundle folder. An existing folder is replaced after the new one was loaded once.

    The batch normalisation of a cmpc2 ResNet is merged into its convolutions; other modules are compiled as they are.
    docs/bundle.md describes what each module takes and returns. centroids: [K, E]. latents: [N, D] or [N, L, D].
    assignments: [N]. embeddings: [N, E], unless `instance_choice` is `first`. The other optional parts are those that
    the manifest names. The hashes in `manifest.files` are set.

    Raises:
        BundleError: parts that do not match each other; nothing is written.
    """

    def write_parts(draft: Path) -> None:
        networks = {FRONT_END: front_end, MAPPER: mapper, "generator.pt": generator}
        networks |= {"voice_encoder.pt": _folded(voice_encoder), "face_encoder.pt": _folded(face_encoder)}
        for name, network in networks.items():
            if network is not None:
                torchscript.save(network, draft / name)
        if latent_map is not None:
            latent_map.write(draft / LATENT_MAP)
        if latent_prior is not None:
            latent_prior.write(draft / LATENT_PRIOR)
        _write_bank(draft, centroids, latents, assignments, embeddings)

    _write(folder, manifest, write_parts)


def write_with_other_bank(
    folder: Path,
    base: Path,
    manifest: Manifest,
    *,
    centroids: NDArray[np.float32],
    latents: NDArray[np.float32],
    assignments: NDArray[np.int32],
    embeddings: NDArray[np.floating] | None = None,
) -> Manifest:
    """Write a bundle folder with the compiled networks of the bundle `base`, byte by byte, and another bank.

    A latent map, a prior and a mapper belong to the bank of `base` and are left out: the manifest's fields for them
    become the defaults. A front end stays. Returns the manifest as it was written. Arguments, replacement and errors
    are those of `write_bundle`.
    """
    manifest = manifest.without_bank_parts()

    def write_parts(draft: Path) -> None:
        for name in NETWORKS if manifest.front_end == "log_mel" else (*NETWORKS, FRONT_END):
            shutil.copy(base / name, draft / name)
        _write_bank(draft, centroids, latents, assignments, embeddings)

    return _write(folder, manifest, write_parts)


def write_with_mapper(folder: Path, base: Path, mapper: nn.Module) -> Manifest:
    """Write a bundle folder with the files of the bundle `base`, byte by byte, and a mapper, which replaces its own.

    folder: may be `base` itself. Returns the manifest as it was written, `mapper` set. Replacement is that of
    `write_bundle`.

    Raises:
        BundleError: an incomplete or altered base, or a mapper that does not fit it; nothing is written.
    """
    manifest = Manifest.read(base)
    verify_files(base, manifest)

    def write_parts(draft: Path) -> None:
        for name in manifest.file_names:
            shutil.copy(base / name, draft / name)
        torchscript.save(mapper, draft / MAPPER)

    return _write(folder, structs.replace(manifest, mapper=True), write_parts)


def _folded(encoder: nn.Module) -> nn.Module:
    return fold_batch_norm(encoder) if isinstance(encoder, ResNet) else encoder


def _write_bank(
    draft: Path,
    centroids: NDArray[np.float32],
    latents: NDArray[np.float32],
    assignments: NDArray[np.int32],
    embeddings: NDArray[np.floating] | None,
) -> None:
    Prototypes.from_centroids(centroids).write(draft / "prototypes.faiss")
    np.save(draft / "latent_bank.npy", latents.astype(np.float32))
    np.save(draft / "assignments.npy", assignments.astype(np.int32))
    if embeddings is not None:
        np.save(draft / EMBEDDINGS, embeddings.astype(np.float16))


def _write(folder: Path, manifest: Manifest, write_parts: Callable[[Path], None]) -> Manifest:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as parent:
        draft = Path(parent) / folder.name
        draft.mkdir()
        write_parts(draft)
        manifest = structs.replace(manifest, files={path.name: sha256(path) for path in sorted(draft.iterdir())})
        (draft / MANIFEST).write_bytes(manifest.to_json())
        Bundle.load(draft).check_encoders()
        if folder.exists():
            folder.rename(Path(parent) / "replaced")
        shutil.move(draft, folder)
    return manifest


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
