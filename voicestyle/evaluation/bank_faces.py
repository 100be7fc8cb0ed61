"""Faces of a bundle's latent bank, to compare generated faces with."""

import numpy as np
import torch

from voicestyle.bundle import Bundle
from voicestyle.images import encode, to_pixels

_NOISE_SEED = 0  # of the noise maps, which are the same for all images


def bank_faces(bundle: Bundle, count: int, size: int, device: str) -> list[bytes]:
    """The PNG of up to `count` latents of the bank, at equal distances in its order, with `size` pixels.

    device: that of the bundle.
    """
    latents = bundle.latent_bank.latents
    rows = np.unique(np.linspace(0, len(latents) - 1, count).round().astype(np.intp))
    source = torch.Generator().manual_seed(_NOISE_SEED)
    shapes: list[list[int]] = bundle.generator.noise_shapes
    noise = [torch.randn(1, 1, *shape, generator=source).to(device) for shape in shapes]
    images: list[bytes] = []
    with torch.no_grad():
        for row in rows:
            w = torch.from_numpy(latents[row : row + 1].copy()).to(device)
            pixels = to_pixels(bundle.generator.render(w, noise, size)[0])
            images.append(encode(pixels, "png", {}))
    return images
