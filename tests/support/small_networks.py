"""Small networks of published shapes. Weights are scaled like trained ones, so images and gradients are not zero."""

from msgspec.structs import replace

from benchmarks.networks import Synthetic
from benchmarks.synthetic_bundle import bundle_parts
from cmpc2 import ResNetConfig
from tests.support.tiny_bundle import TinyMapper
from voicestyle.generators import StyleGAN2Config

CAPACITY = 4
SMALL = Synthetic(
    StyleGAN2Config(size=64, max_width=32),  # channels enough for the tensor cores of a GPU
    ResNetConfig(widths=(8, 8, 16, 16), depths=(1, 1, 1, 1), embedding_dim=8),
    steps=20,
)


def small_parts():
    """Arguments of `write_bundle` for a bundle of these networks, with a mapper.

    Images are pooled and resized for the face encoder.
    """
    parts = bundle_parts(SMALL)
    manifest = replace(parts["manifest"], image_size=32, encoder_size=28, mapper=True)
    return parts | {"manifest": manifest, "mapper": TinyMapper().eval()}


def call_in_place_of_graph(run):
    """Captures a function as CUDA does, by running it, but replays it by calling it again."""
    run()
    return run
