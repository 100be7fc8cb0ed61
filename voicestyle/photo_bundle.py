"""A bundle whose latent bank comes from photographs, with the networks of another bundle.

The faces of the inverted latents are embedded by that bundle's face encoder and clustered; the clusters' centroids are
the prototypes.
"""

import hashlib
from pathlib import Path
from typing import cast

import faiss
import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from voicestyle.bundle import Bundle, sha256, write_with_other_bank
from voicestyle.engine import Generator
from voicestyle.errors import BundleError
from voicestyle.inverted_latents import read_latents
from voicestyle.latent_embeddings import Progress, embed_latents
from voicestyle.manifest import Manifest

NAME = "photographs"
KMEANS_ITERATIONS = 50
CARD = (
    "The latent bank derives from {count} photographs, so that the faces of this bundle resemble the people in them: "
    "serve it only with their consent. Networks of the bundle {base}, whose card says: {card}"
)


def build_photo_bundle(
    folder: Path, base: Path, latents: Path, *, prototypes: int | None = None, progress: Progress = iter
) -> Manifest:
    """Write a bundle folder with the networks of the bundle `base` and a bank of inverted latents.

    What belongs to the base's own bank is left out: a latent map, a prior and a mapper. A front end stays.

    latents: a file as in docs/checkpoints.md, such as `latents.pt` of a bank build. prototypes: their number, by
    default the square root of the number of latents, at least the base's `nearest`. progress: of embedding the faces.

    Raises:
        BundleError: an invalid base, or too few latents, or latents of another generator.
        CheckpointError: an invalid file of latents.
        OSError: a path that cannot be opened.
    """
    bundle = Bundle.load(base)
    manifest, bank = bundle.manifest, read_latents(latents).latents
    count = prototypes or max(manifest.nearest, round(len(bank) ** 0.5))
    rows = cast(int, bundle.generator.latent_rows)
    _check(bank, manifest, rows, count)
    embeddings = embed_latents(
        cast(Generator, bundle.generator),
        bundle.face_encoder,
        bank,
        image_size=manifest.image_size,
        encoder_size=manifest.encoder_size,
        progress=progress,
    )
    centroids, assignments = cluster(embeddings, count)
    if len(centroids) < manifest.nearest:
        raise BundleError(
            f"the faces must be different enough for {manifest.nearest} prototypes, got {len(centroids)}; "
            "give more photographs"
        )
    digest = sha256(latents)
    described = structs.replace(
        manifest,
        name=NAME,
        version=hashlib.sha256(f"{manifest.version} {digest} {count}".encode()).hexdigest()[:12],
        sources=(*manifest.sources, f"latent bank: {len(bank)} inverted photographs, sha256 of the latents {digest}"),
        card=CARD.format(count=len(bank), base=f"{manifest.name}@{manifest.version}", card=manifest.card),
        prototypes=len(centroids),
        prototype_level=len(centroids),
        empty_prototypes=0,
        latent_rows=None if bank.ndim == 2 else rows,
        instance_choice="nearest" if manifest.instance_choice == "first" else manifest.instance_choice,
    )
    return write_with_other_bank(
        folder, base, described, centroids=centroids, latents=bank, assignments=assignments, embeddings=embeddings
    )


def cluster(embeddings: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Spherical k-means of embeddings [N, E] into at most `count` clusters, none of them empty.

    Returns centroids [K, E] and the cluster of each embedding, int32 [N].
    """
    points = np.array(embeddings, np.float32, order="C")
    faiss.normalize_L2(points)
    kmeans = faiss.Kmeans(
        points.shape[1], count, niter=KMEANS_ITERATIONS, seed=0, spherical=True, min_points_per_centroid=1
    )
    kmeans.train(points)
    nearest = kmeans.index.search(points, 1)[1][:, 0]
    used, assignments = np.unique(nearest, return_inverse=True)
    return np.asarray(kmeans.centroids)[used], assignments.astype(np.int32)


def _check(latents: NDArray[np.float32], manifest: Manifest, rows: int, prototypes: int) -> None:
    shapes = ((manifest.latent_dim,), (rows, manifest.latent_dim))
    if latents.shape[1:] not in shapes:
        rule = f"latents must be the generator's w {list(shapes[0])} or w+ {list(shapes[1])}"
        raise BundleError(f"{rule}, got {list(latents.shape[1:])}")
    if len(latents) < manifest.nearest:
        raise BundleError(
            f"a bundle needs at least {manifest.nearest} latents, one for each prototype that a voice takes, "
            f"got {len(latents)}; give more photographs"
        )
    if not manifest.nearest <= prototypes <= len(latents):
        raise BundleError(
            f"prototypes must be {manifest.nearest} (the prototypes that a voice takes) to {len(latents)} (the "
            f"latents), got {prototypes}"
        )
