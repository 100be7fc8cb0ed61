"""Build a bundle from the files that the authors of CMPC, VoiceStyle and StyleGAN2 publish."""

from voicestyle.published.bundle import Built, PublishedFiles, PublishedOptions, build_published_bundle
from voicestyle.published.latents import InvertedLatents, read_latents

__all__ = [
    "Built",
    "InvertedLatents",
    "PublishedFiles",
    "PublishedOptions",
    "build_published_bundle",
    "read_latents",
]
