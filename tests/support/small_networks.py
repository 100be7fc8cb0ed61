"""Small networks of published shapes. Weights are scaled like trained ones, so images and gradients are not zero."""

import numpy as np
import torch
from msgspec.structs import replace

from benchmarks.networks import LATENT_STD, Synthetic
from cmpc2 import ResNetConfig
from tests.support.tiny_bundle import tiny_parts_with_mapper
from voicestyle.generators import StyleGAN2Config, face_z

CAPACITY = 4
SMALL = Synthetic(
    StyleGAN2Config(size=64, max_width=64),  # channels enough for the tensor cores of a GPU
    ResNetConfig(widths=(16, 16, 32, 32), depths=(1, 1, 1, 1), embedding_dim=8),
    steps=20,
)


def small_parts():
    """Arguments of `write_bundle` for a bundle of these networks, with a mapper and 40 latents."""
    parts, networks = tiny_parts_with_mapper(), SMALL.load()
    generator = networks.generator
    manifest = replace(
        parts["manifest"],
        image_size=networks.image_size,
        encoder_size=networks.image_size,
        sizes=tuple(generator.sizes),
        default_size=max(generator.sizes),
        latent_std=LATENT_STD,
    )
    with torch.no_grad():
        latents = generator.map(face_z(range(40))).numpy().astype(np.float32)
    networks_of_bundle = {
        "generator": generator,
        "voice_encoder": networks.voice_encoder,
        "face_encoder": networks.face_encoder,
    }
    return parts | networks_of_bundle | {"manifest": manifest, "latents": latents}


def call_in_place_of_graph(run):
    """Captures a function as CUDA does, by running it, but replays it by calling it again."""
    run()
    return run
