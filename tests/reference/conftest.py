"""The reference vectors: outputs of the published implementation, stored outside of the repository.

`VOICESTYLE_REFERENCE` is the path of a folder of vectors; the default is `../shared/reference/vectors`, relative to the
repository. Its meta.json gives the seed, the names of the recordings and the sizes. `weights.py` and
`state_dict_shapes.json`, which generate the weights, are in the parent folder or in `../shared/reference`.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from voicestyle.generators import read_stylegan2

SHARED = Path(__file__).resolve().parents[3] / "shared" / "reference"
VECTORS = Path(os.environ.get("VOICESTYLE_REFERENCE") or SHARED / "vectors").resolve()
META = VECTORS / "meta.json"

# A test with one of these parameters runs once for each value in meta.json.
PARAMETERS = {
    "wave": "waves",
    "face_size": "face_sizes",
    "generator_size": "generator_sizes",
    "optimise_size": "optimise_sizes",
    "cluster": "clusters",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    meta = json.loads(META.read_text()) if META.is_file() else None
    for name, key in PARAMETERS.items():
        if name in metafunc.fixturenames:
            values = [pytest.param(None, id="absent")] if meta is None else meta.get(key, [])
            metafunc.parametrize(name, values)


class Reference:
    """One folder of vectors and the corresponding weights."""

    def __init__(self, vectors: Path, weights: ModuleType, shapes: dict[str, dict[str, list[int]]]) -> None:
        self.vectors = vectors
        self.meta: dict[str, Any] = json.loads((vectors / "meta.json").read_text())
        self.seed = int(self.meta["seed"])
        self._weights = weights
        self._shapes = shapes

    def array(self, name: str, key: str) -> np.ndarray:
        """The array `key` of NAME.npz."""
        with np.load(self.vectors / f"{name}.npz") as arrays:
            return arrays[key]

    def normal(self, shape: Sequence[int], key: str) -> np.ndarray:
        """The standard normal float32 array for `key` and the seed."""
        return self._weights.normal(shape, self.seed, key)

    def state_dict(self, network: str) -> dict[str, torch.Tensor]:
        """Weights of a network of state_dict_shapes.json, by their published names."""
        filled = self._weights.fill(self._shapes[network], self.seed)
        return {key: torch.from_numpy(np.asarray(value)) for key, value in filled.items()}


def first_of(name: str) -> Path | None:
    return next((folder / name for folder in (VECTORS.parent, SHARED) if (folder / name).is_file()), None)


def pytest_runtest_setup() -> None:
    # Skip here instead of in the fixture, for which pytest would list each test separately.
    if not all((META.is_file(), first_of("weights.py"), first_of("state_dict_shapes.json"))):
        pytest.skip("no reference vectors: set VOICESTYLE_REFERENCE to their folder (see tests/reference/conftest.py)")


@pytest.fixture(scope="session")
def reference() -> Reference:
    source, shapes = first_of("weights.py"), first_of("state_dict_shapes.json")
    assert source is not None
    assert shapes is not None
    spec = importlib.util.spec_from_file_location("reference_weights", source)
    assert spec is not None
    assert spec.loader is not None
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    return Reference(VECTORS, weights, json.loads(shapes.read_text()))


@pytest.fixture(scope="session")
def generator_of(reference, tmp_path_factory):
    """`generator_of(size, dtype)`: the generator, read from a file in the published format."""

    @cache
    def read(size: int, dtype: torch.dtype):
        path = tmp_path_factory.mktemp("checkpoint") / "stylegan2.pt"
        torch.save({"g_ema": reference.state_dict(f"stylegan2_{size}")}, path)
        generator, contents = read_stylegan2(path, dtype)
        path.unlink()
        assert contents.config.size == size
        return generator

    return read
