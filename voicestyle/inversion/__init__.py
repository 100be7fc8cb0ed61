"""The losses of GAN inversion: how far an image is from a photograph, by perceptual features and by identity."""

from voicestyle.inversion.identity import IdentityLoss
from voicestyle.inversion.perceptual import PerceptualLoss

__all__ = ["IdentityLoss", "PerceptualLoss"]
