"""From a generator's image to the face encoder's input."""

from torch import Tensor

from voicestyle.resampling import average_pool, resize


def encoder_input(image: Tensor, image_size: int, encoder_size: int) -> Tensor:
    """Images [N, 3, S, S], not clamped, to the encoder's input [N, 3, encoder_size, encoder_size] in [-1, 1].

    Larger images are average-pooled to image_size before they are clamped, as published; then they are resized to
    encoder_size if that differs.
    """
    if image.shape[-1] > image_size:
        image = average_pool(image, image_size)
    image = image.clamp(-1, 1)
    return image if image.shape[-1] == encoder_size else resize(image, encoder_size)
