"""Photographs of generated faces: aligned like FFHQ, and no real person's."""

from pathlib import Path

import numpy as np
from PIL import Image

from voicestyle.demo_bundle import fetch_wheel
from voicestyle.generators import from_wheel, map_seeds
from voicestyle.images import to_pixels

WHEELS = Path(__file__).parents[2] / ".cache" / "wheels"
FIRST_SEED = 70_000  # beyond the faces of the demo bundle


def write_faces(paths: list[Path]) -> None:
    """Write one generated face of 512 pixels to each path; folders are made, the suffix decides on the format."""
    generator = from_wheel(fetch_wheel(WHEELS))
    seeds = np.arange(FIRST_SEED, FIRST_SEED + len(paths), dtype=np.uint32)
    for path, w in zip(paths, map_seeds(generator, seeds), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(to_pixels(generator.render(w[None], [], 1024)[0]))
        image.resize((512, 512)).save(path)
