"""A face network that needs no weights."""

import torch.nn.functional as F

from voicestyle.face_networks import FaceNetwork


class TinyNetwork(FaceNetwork):
    """Embeds the face's coarse pixels."""

    name = "tiny"
    embedding_dim = 12

    def crop(self, images):
        return F.adaptive_avg_pool2d(images, 2)

    def forward(self, faces):
        return faces.flatten(1) + 0.1
