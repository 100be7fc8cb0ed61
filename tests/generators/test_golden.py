"""The published network against results of OpenVINO (scripts/make_generator_golden.py)."""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from voicestyle.generators import MobileStyleGAN, face_z

GOLDEN = Path(__file__).parent / "golden.npz"
TOLERANCE = 1e-3


def test_agrees_with_openvino_at_1024_pixels(generator: MobileStyleGAN) -> None:
    with np.load(GOLDEN) as archive:
        golden = {name: torch.from_numpy(value) for name, value in archive.items()}
    z = face_z(golden["seeds"].tolist())
    with torch.no_grad():
        w = generator.map(z)
        image = torch.cat([generator.render(item, [], 1024) for item in golden["w"].split(1)])
    assert image.shape == (2, 3, 1024, 1024)
    torch.testing.assert_close(w, golden["w"], rtol=0, atol=1e-4)
    torch.testing.assert_close(functional.avg_pool2d(image, 32), golden["image_32"], rtol=0, atol=TOLERANCE)
    size = golden["crops"].shape[-1]
    for crop, (top, left) in zip(golden["crops"].unbind(1), golden["corners"].tolist(), strict=True):
        ours = image[:, :, top : top + size, left : left + size]
        torch.testing.assert_close(ours, crop, rtol=0, atol=TOLERANCE)
