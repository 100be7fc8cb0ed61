"""Image generators: latent w to face. They are scriptable and differentiable in w and their noise maps."""

from voicestyle.generators.latents import face_z, latent_statistics, latent_std, map_seeds
from voicestyle.generators.mobilestylegan import MobileStyleGAN, MobileStyleGANConfig
from voicestyle.generators.random_face import DEFAULT_HEAD, WHEEL_NAME, WHEEL_SHA256, from_wheel
from voicestyle.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from voicestyle.generators.stylegan2_checkpoint import StyleGAN2Contents, read_stylegan2

__all__ = [
    "DEFAULT_HEAD",
    "WHEEL_NAME",
    "WHEEL_SHA256",
    "MobileStyleGAN",
    "MobileStyleGANConfig",
    "StyleGAN2",
    "StyleGAN2Config",
    "StyleGAN2Contents",
    "face_z",
    "from_wheel",
    "latent_statistics",
    "latent_std",
    "map_seeds",
    "read_stylegan2",
]
