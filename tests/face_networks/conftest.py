"""The networks with their real weights, fetched once into .cache, and pictures that packages carry."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from voicestyle.face_networks import fetch_dlib_resnet, fetch_mobileface

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cache():
    return ROOT / ".cache" / "face_networks"


@pytest.fixture(scope="session")
def dlib_resnet(cache):
    return fetch_dlib_resnet(cache)


@pytest.fixture(scope="session")
def mobileface(cache):
    return fetch_mobileface(cache)


@pytest.fixture(scope="session")
def astronaut():
    """A face, uint8 [256, 256, 3], cut where the FFHQ alignment of its 68 landmarks cuts it."""
    from skimage.data import astronaut
    from skimage.transform import resize

    face = resize(astronaut()[19:194, 137:312], (256, 256), anti_aliasing=True)
    return (face * 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def images(astronaut):
    """The astronaut, her mirror image, and noise, [3, 3, 256, 256] in [-1, 1]."""
    face = torch.from_numpy(astronaut.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
    noise = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.stack([face, face.flip(2), noise])


@pytest.fixture(scope="session")
def dlib_descriptor():
    """dlib's own network: a function of a picture uint8 [150, 150, 3] to its descriptor [128]."""
    import dlib

    # The package's own functions need pkg_resources, which setuptools has dropped.
    folder = Path(importlib.util.find_spec("face_recognition_models").submodule_search_locations[0])
    network = dlib.face_recognition_model_v1(os.fspath(folder / "models" / "dlib_face_recognition_resnet_model_v1.dat"))
    return lambda pixels: np.array(network.compute_face_descriptor(np.ascontiguousarray(pixels)))
