"""The inverse Haar transform of an image, as additions and a reshape."""

import torch
from torch import Tensor


def inverse_haar(subbands: Tensor) -> Tensor:
    """Put four subbands together into an image of twice the height and width.

    subbands: [N, 4·C, H, W], the C low-pass channels first, then the vertical details (top minus bottom),
    the horizontal ones (left minus right), the diagonal ones. Returns [N, C, 2·H, 2·W].

    The gain is twice that of the orthonormal transform: the low-pass band alone passes through unchanged,
    each pixel repeated four times. Whoever makes the subbands holds the factor ½ in its weights.
    """
    low, vertical, horizontal, diagonal = subbands.permute(0, 2, 3, 1).chunk(4, dim=3)
    top, bottom = low + vertical, low - vertical
    top_detail, bottom_detail = horizontal + diagonal, horizontal - diagonal
    above = torch.stack((top + top_detail, top - top_detail), dim=3)
    below = torch.stack((bottom + bottom_detail, bottom - bottom_detail), dim=3)
    rows = torch.stack((above, below), dim=2)  # [N, H, 2, W, 2, C]
    return rows.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def haar(image: Tensor) -> Tensor:
    """Undo `inverse_haar`: [N, C, 2·H, 2·W] to [N, 4·C, H, W]; the low-pass band is the average-pooled image."""
    even, odd = image[:, :, 0::2], image[:, :, 1::2]
    a, b, c, d = even[..., 0::2], even[..., 1::2], odd[..., 0::2], odd[..., 1::2]
    return torch.cat((a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d), dim=1) / 4
