"""GE2E with its real weights, fetched once into .cache, and the speech of the repository's three samples."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cmpc2.audio import decode
from cmpc2.vad import speech_only
from voicestyle.voice_networks import Ge2eFrontEnd, fetch_ge2e

WHEELS = Path(__file__).parents[2] / ".cache" / "wheels"


@pytest.fixture(scope="session")
def ge2e():
    return fetch_ge2e(WHEELS)


@pytest.fixture(scope="session")
def front_end():
    return Ge2eFrontEnd().eval()


@pytest.fixture(scope="session")
def speech(samples):
    """The speech of each sample, float32 [n] in [-1, 1]."""
    return {
        name: torch.from_numpy(speech_only(decode(samples / f"{name}.wav")).astype(np.float32) / 32768)
        for name in ("awb", "rms", "slt")
    }
