"""Write the three committed files of the encoders, and compute their quality metrics."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cmpc2 import CMPC, ResNetConfig
from voicestyle.training.clusters import Clusters, cluster_purity


def rounded_to_float16(model: CMPC) -> CMPC:
    """Round the model's convolutions to float16, as stored, in place; batch norms keep float32. Returns the model."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.copy_(module.weight.half().float())
    return model.eval()


@torch.inference_mode()
def embed_faces(model: CMPC, images: NDArray[np.uint8], batch: int = 32) -> Tensor:
    """L2-normalised embeddings float32 [N, E] of images [N, H, W, 3], without augmentation."""
    parts: list[Tensor] = []
    for first in range(0, len(images), batch):
        pixels = torch.from_numpy(images[first : first + batch]).permute(0, 3, 1, 2)
        parts.append(F.normalize(model.encode_face(pixels.float() / 127.5 - 1), dim=1))
    return torch.cat(parts)


def consistent_faces(faces: Tensor, sex: Tensor) -> Tensor:
    """Rows, int64 [n], of the faces [N, E] that are nearer to the mean face of their label than to that of the other.

    A face for which label and encoder disagree would assign voices to prototypes of the other sex.
    """
    means = torch.stack([F.normalize(faces[sex == each].mean(0), dim=0) for each in (0, 1)])
    return ((faces @ means.T).argmax(1) == sex).nonzero().flatten()


@torch.inference_mode()
def embed_voices(model: CMPC, log_mels: list[Tensor]) -> Tensor:
    """L2-normalised embeddings float32 [n, E] of whole recordings [1, 64, T]."""
    return torch.cat([F.normalize(model.encode_voice(each[None]), dim=1) for each in log_mels])


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


def write_assets(
    folder: Path,
    model: CMPC,
    configs: dict[str, ResNetConfig],
    bank: Mapping[str, NDArray[Any]],
    card: dict[str, Any],
) -> None:
    """Write encoders.npz, encoders.json and faces.npz, without pickled objects."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: (value.half() if value.ndim == 4 else value).numpy() for name, value in model.state_dict().items()}
    np.savez_compressed(folder / "encoders.npz", allow_pickle=False, **weights)
    np.savez_compressed(folder / "faces.npz", allow_pickle=False, **bank)
    described = {name: asdict(config) for name, config in configs.items()} | card
    (folder / "encoders.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
