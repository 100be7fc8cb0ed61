"""Build a bundle from the files that the authors of CMPC, VoiceStyle and StyleGAN2 publish."""

from voicestyle.inverted_latents import InvertedLatents, read_latents
from voicestyle.published.bundle import (
    Built,
    PublishedFiles,
    PublishedOptions,
    build_published_bundle,
    check_published_files,
)

__all__ = [
    "Built",
    "InvertedLatents",
    "PublishedFiles",
    "PublishedOptions",
    "build_published_bundle",
    "check_published_files",
    "read_latents",
]
