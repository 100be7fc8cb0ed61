"""Face embeddings of a latent bank: what the face encoder sees in the image of each latent."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from voicestyle.engine import FaceEncoder, Generator, encoder_input

BATCH = 8
SEED = 0  # of the noise maps, which are the same for all images

Progress = Callable[[range], Iterable[int]]


@torch.inference_mode()
def embed_latents(
    generator: Generator,
    face_encoder: FaceEncoder,
    latents: NDArray[np.float32],
    *,
    image_size: int,
    encoder_size: int,
    device: torch.device | str = "cpu",
    progress: Progress = iter,
) -> NDArray[np.float32]:
    """The face embedding [N, E] of each latent's image, with the same noise maps for all. Slow on a CPU.

    latents: w [N, D] or w+ [N, L, D]. device: of both networks. progress: wraps the range of batches, as `tqdm` does.
    """
    source = torch.Generator().manual_seed(SEED)
    noise = [torch.randn(1, 1, *shape, generator=source).to(device) for shape in generator.noise_shapes]
    parts: list[NDArray[np.float32]] = []
    for start in progress(range(0, len(latents), BATCH)):
        w = torch.from_numpy(latents[start : start + BATCH]).to(device)
        images = encoder_input(generator(w, noise), image_size, encoder_size)
        parts.append(face_encoder(images).float().cpu().numpy())
    return np.concatenate(parts)
