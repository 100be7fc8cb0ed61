"""The regulariser of noise maps and their normalisation, for many maps at once and for each alone."""

import torch

from voicestyle.engine.noise_maps import normalise_, regularisation


def test_noise_maps_are_regularised_and_normalised_alone():
    maps = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    alone = torch.cat([regularisation([maps[i : i + 1]]) for i in range(3)])
    torch.testing.assert_close(regularisation([maps]), alone)
    normalise_(maps.mul_(torch.tensor([1.0, 5.0, 9.0]).view(3, 1, 1, 1)).add_(2))
    torch.testing.assert_close(maps.std(dim=(1, 2, 3)), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(maps.mean(dim=(1, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_maps_regularised_by_size_equal_each_map_alone():
    source = torch.Generator().manual_seed(7)
    maps = [
        torch.randn(2, 1, size, size, generator=source, dtype=torch.float64, requires_grad=True)
        for size in (4, 8, 8, 24, 32, 32, 6)
    ]
    at_once, apart = regularisation(maps), sum(regularisation([level]) for level in maps)
    torch.testing.assert_close(at_once, apart, rtol=1e-12, atol=0)
    found = [torch.autograd.grad(value.sum(), maps) for value in (at_once, apart)]
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-15)
