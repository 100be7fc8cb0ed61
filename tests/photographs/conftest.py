"""Generated faces in larger pictures, shared by the tests of detection, alignment and the judge."""

import pytest

from tests.support.placed_faces import WHEEL, generated_face, load_generator
from voicestyle.demo_bundle import fetch_wheel

# Faces that both detectors find when they are placed at `random_square(seed)`.
SEEDS = (1, 2, 3)


@pytest.fixture(scope="session")
def faces():
    """seed: uint8 [1024, 1024, 3]."""
    generator = load_generator(fetch_wheel(WHEEL.parent))
    return {seed: generated_face(generator, seed) for seed in SEEDS}
