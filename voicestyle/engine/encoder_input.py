"""What the face encoder sees of a generator's image."""

import torch.nn.functional as F
from torch import Tensor


def encoder_input(image: Tensor, image_size: int, encoder_size: int) -> Tensor:
    """Images [N, 3, S, S], not clamped, as the face encoder takes them: [N, 3, encoder_size, encoder_size] in [-1, 1].

    Larger ones are average-pooled to image_size before they are clamped, as published; then they are resized to
    encoder_size where that is another.
    """
    if image.shape[-1] > image_size:
        image = F.adaptive_avg_pool2d(image, image_size)
    image = image.clamp(-1, 1)
    if image.shape[-1] != encoder_size:
        image = F.interpolate(image, (encoder_size, encoder_size), mode="bilinear", antialias=True, align_corners=False)
    return image
