"""Write the committed files of the demo, and compute its quality metrics."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from voicestyle.latent_map import LatentMap
from voicestyle.training.clusters import Clusters, cluster_purity


@dataclass(frozen=True)
class DemoAssets:
    """What a training gives. seeds: int64 [N] of the bank's faces. embeddings: [N, E] of them. directions: float32
    [H, D], which the optimisation holds. card: for encoders.json."""

    voice_head: nn.Module
    face_encoder: nn.Module
    seeds: NDArray[np.int64]
    clusters: Clusters
    embeddings: Tensor
    latent_map: LatentMap
    directions: NDArray[np.float32]
    card: dict[str, Any]


def rounded_to_float16(model: nn.Module) -> None:
    """Round the model's matrices and convolutions to float16, as stored, in place."""
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value.copy_(value.half().float())


@torch.inference_mode()
def embed_faces(encoder: nn.Module, images: Iterable[NDArray[np.uint8]]) -> Tensor:
    """L2-normalised embeddings float32 [N, E] of images [H, W, 3], without augmentation."""
    parts: list[Tensor] = []
    for image in images:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        parts.append(F.normalize(encoder(pixels.float() / 127.5 - 1), dim=1))
    return torch.cat(parts)


def consistent_faces(faces: Tensor, sex: Tensor) -> Tensor:
    """Rows, int64 [n], of the faces [N, E] that are nearer to the mean face of their label than to that of the other.

    A face for which label and encoder disagree would assign voices to prototypes of the other sex.
    """
    means = torch.stack([F.normalize(faces[sex == each].mean(0), dim=0) for each in (0, 1)])
    return ((faces @ means.T).argmax(1) == sex).nonzero().flatten()


def measure(voices: Tensor, voice_sex: Tensor, faces: Tensor, face_sex: Tensor, clusters: Clusters) -> dict[str, Any]:
    """Metrics of held-out voices [n, E] against the bank's faces [N, E] and its prototypes.

    sex_of_nearest: share of voices whose three nearest prototypes have, by majority, the speaker's sex; women, men: the
    same for the voices of one sex. voice_cosine_same_sex, face_cosine_same_sex: mean cosine of two embeddings of the
    same sex; 1 would mean that they collapsed to one point per sex. distinct_prototype_sets: number of different sets
    of three nearest prototypes; distinct_nearest: of nearest prototypes. least_purity, mean_purity: of the prototypes,
    with respect to sex.
    """
    purity = cluster_purity(clusters.assignments, face_sex)
    count = len(clusters.centroids)
    share_men = torch.zeros(count).index_add_(0, clusters.assignments, face_sex.float())
    share_men = share_men / torch.bincount(clusters.assignments, minlength=count)
    nearest = (voices @ clusters.centroids.T).topk(3, dim=1).indices
    agrees = ((share_men[nearest].round().mean(1) > 0.5).long() == voice_sex).float()
    same = (voice_sex[:, None] == voice_sex) & ~torch.eye(len(voices), dtype=torch.bool)
    same_face = face_sex[:, None] == face_sex
    return {
        "sex_of_nearest": round(float(agrees.mean()), 4),
        "women": round(float(agrees[voice_sex == 0].mean()), 4),
        "men": round(float(agrees[voice_sex == 1].mean()), 4),
        "voice_cosine_same_sex": round(float((voices @ voices.T)[same].mean()), 4),
        "face_cosine_same_sex": round(float((faces @ faces.T)[same_face].mean()), 4),
        "distinct_prototype_sets": len({tuple(sorted(row)) for row in nearest.tolist()}),
        "distinct_nearest": len(set(nearest[:, 0].tolist())),
        "least_purity": round(float(purity.min()), 4),
        "mean_purity": round(float(purity.mean()), 4),
    }


def write_assets(folder: Path, assets: DemoAssets) -> None:
    """Write encoders.npz, encoders.json, faces.npz and first_latents.npz, without pickled objects."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"voice": assets.voice_head, "face": assets.face_encoder}
    weights = {
        f"{part}.{name}": (value.half() if part == "face" and value.ndim > 1 else value).numpy()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    np.savez_compressed(folder / "encoders.npz", allow_pickle=False, **weights)
    np.savez_compressed(
        folder / "faces.npz",
        allow_pickle=False,
        seeds=assets.seeds.astype(np.uint32),
        assignments=assets.clusters.assignments.numpy().astype(np.int32),
        centroids=assets.clusters.centroids.numpy(),
        face_embeddings=assets.embeddings.half().numpy(),
        held=assets.directions,
    )
    assets.latent_map.write(folder / "first_latents.npz")
    (folder / "encoders.json").write_text(json.dumps(assets.card, indent=2) + "\n", encoding="utf-8")
