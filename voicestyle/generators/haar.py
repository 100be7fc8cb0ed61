"""The Haar transform of an image and its inverse, computed with additions and reshapes."""

import torch
from torch import Tensor


def inverse_haar(subbands: Tensor) -> Tensor:
    """Combine four subbands into an image of twice the height and width.

    subbands: [N, 4·C, H, W], the C low-pass channels first, then the vertical details (top minus bottom), the
    horizontal (left minus right) and the diagonal details. Returns [N, C, 2·H, 2·W].

    The gain is twice that of the orthonormal transform, so the low-pass band alone gives its pixels, each repeated four
    times. The weights of the layer that produces the subbands include the factor ½.
    """
    low, vertical, horizontal, diagonal = subbands.permute(0, 2, 3, 1).chunk(4, dim=3)
    top, bottom = low + vertical, low - vertical
    top_detail, bottom_detail = horizontal + diagonal, horizontal - diagonal
    above = torch.stack((top + top_detail, top - top_detail), dim=3)
    below = torch.stack((bottom + bottom_detail, bottom - bottom_detail), dim=3)
    rows = torch.stack((above, below), dim=2)  # [N, H, 2, W, 2, C]
    return rows.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def haar(image: Tensor) -> Tensor:
    """Invert `inverse_haar`: [N, C, 2·H, 2·W] to [N, 4·C, H, W]. The low-pass band is the average-pooled image."""
    even, odd = image[:, :, 0::2], image[:, :, 1::2]
    a, b, c, d = even[..., 0::2], even[..., 1::2], odd[..., 0::2], odd[..., 1::2]
    return torch.cat((a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d), dim=1) / 4
