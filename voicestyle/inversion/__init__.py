"""GAN inversion: the latent of a generator whose image is nearest to a photograph (step 3 of the method)."""

from voicestyle.inversion.inverter import Inversion, InversionOptions, Inverter
from voicestyle.inversion.loss import InversionLoss, LossFiles, load_loss
from voicestyle.inversion.perceptual import PerceptualTerm
from voicestyle.inversion.terms import EdgeTerm, IdentityTerm, PixelTerm, Term

__all__ = [
    "EdgeTerm",
    "IdentityTerm",
    "Inversion",
    "InversionLoss",
    "InversionOptions",
    "Inverter",
    "LossFiles",
    "PerceptualTerm",
    "PixelTerm",
    "Term",
    "load_loss",
]
