"""Image generators: latent w to face. Each scripts, and takes gradients through w and its noise maps."""

from voicestyle.generators.latents import face_z
from voicestyle.generators.mobilestylegan import MobileStyleGAN, MobileStyleGANConfig
from voicestyle.generators.random_face import DEFAULT_HEAD, WHEEL_NAME, WHEEL_SHA256, from_wheel

__all__ = [
    "DEFAULT_HEAD",
    "WHEEL_NAME",
    "WHEEL_SHA256",
    "MobileStyleGAN",
    "MobileStyleGANConfig",
    "face_z",
    "from_wheel",
]
