"""The committed 256-pixel head."""

from pathlib import Path

import numpy as np
import pytest

from cmpc2.errors import CheckpointError
from voicestyle.generators import DEFAULT_HEAD, MobileStyleGAN
from voicestyle.generators.random_face import read_head
from voicestyle.training.head import HELD_OUT_SEED, measure_head


def test_head_is_close_to_the_full_network_on_new_faces(generator: MobileStyleGAN) -> None:
    """Four of the 64 faces of scripts/fit_head.py --measure."""
    assert measure_head(generator, range(HELD_OUT_SEED, HELD_OUT_SEED + 4), iter).mean() > 28


def test_head_of_another_wheel_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    for extra, received in (({}, "an unnamed wheel"), ({"wheel_sha256": np.array("0" * 64)}, "0" * 64)):
        np.savez(path, **{"direct.bias": np.zeros(12)}, **extra)
        with pytest.raises(CheckpointError, match=rf"head\.npz must be fitted to the wheel .*, got one for {received}"):
            read_head(path)


def test_committed_weights_are_float16_without_pickle() -> None:
    assert DEFAULT_HEAD.stat().st_size < 1_000_000
    with np.load(DEFAULT_HEAD, allow_pickle=False) as archive:
        assert {archive[name].dtype.name for name in archive if name != "wheel_sha256"} == {"float16"}
