"""Random latents by seed."""

import pytest
import torch

from voicestyle.generators import face_z


def test_values_are_fixed() -> None:
    z = face_z([0, 2**32 - 1])
    assert z.shape == (2, 512)
    assert z.dtype == torch.float32
    expected = [[-0.2059740275, -0.1288449466, -0.2897898853], [-0.4506388903, 0.8244933486, -1.6570591927]]
    torch.testing.assert_close(z[:, :3], torch.tensor(expected), rtol=1e-6, atol=0)


def test_a_latent_depends_only_on_its_seed() -> None:
    assert torch.equal(face_z([3, 1, 2])[1:], face_z([1, 2]))
    assert not torch.equal(face_z([1]), face_z([2]))
    assert face_z([]).shape == (0, 512)


def test_latents_are_standard_normal() -> None:
    z = face_z(range(200))
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_rejected(seed: int) -> None:
    with pytest.raises(ValueError, match=f"got {seed}"):
        face_z([seed])
