"""Augmentation of faces and voices."""

import numpy as np
import torch

from voicestyle.training.augment_faces import FaceAugmentation
from voicestyle.training.augment_voices import VoiceAugmentation, recording_variants


def faces(count: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 48, 48, generator=generator) * 1.6 - 0.8


def test_views_have_the_requested_size_and_range():
    views = FaceAugmentation()(faces(), 32, torch.Generator().manual_seed(1))
    assert views.shape == (6, 3, 32, 32)
    assert views.dtype == torch.float32
    assert float(views.min()) >= -1
    assert float(views.max()) <= 1


def test_views_depend_only_on_the_generator():
    one, two, other = (FaceAugmentation()(faces(), 48, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_views_have_finite_gradients():
    images = faces().requires_grad_()
    FaceAugmentation()(images, 48, torch.Generator().manual_seed(3)).square().sum().backward()
    assert images.grad is not None
    assert bool(images.grad.isfinite().all())
    assert bool((images.grad.flatten(1).norm(dim=1) > 0).all())


def test_views_vary_in_light_and_colour():
    flat = torch.zeros(64, 3, 48, 48)
    views = FaceAugmentation(noise=0.0)(flat, 48, torch.Generator().manual_seed(4))
    middle = views[:, :, 20:28, 20:28].mean((2, 3))
    corner = views[:, :, :4, :4].mean((2, 3))
    assert float(middle.mean(1).std()) > 0.2
    assert float((middle - corner).mean(1).std()) > 0.1
    assert float((middle[:, 0] - middle[:, 2]).std()) > 0.1


def only_background(**strengths: float) -> FaceAugmentation:
    """Changes nothing but the background."""
    none = dict.fromkeys(("hue", "saturation", "channel_gain", "brightness", "oval_light", "gamma", "noise"), 0.0)
    return FaceAugmentation(**{**none, "scale": 0.0, "shift": 0.0, "rotation": 0.0, **strengths})


def test_the_background_comes_from_another_image_outside_the_oval_only():
    """Black and white images: a view of one is of its own level in the middle, of the other's in the corners."""
    levels = torch.tensor([-0.8, 0.8]).repeat(20)
    flat = levels.view(-1, 1, 1, 1).expand(-1, 3, 64, 64)
    replaced = only_background(background=1.0)._behind(flat, torch.Generator().manual_seed(5))
    middle, corners = replaced[:, :, 28:44, 26:38], replaced[:, :, :6, :6]
    assert float((middle - levels.view(-1, 1, 1, 1)).abs().max()) < 0.2
    assert float((corners + levels.view(-1, 1, 1, 1)).abs().max()) < 0.2
    kept = only_background(background=0.0)._behind(flat, torch.Generator().manual_seed(5))
    assert torch.equal(kept, flat)


def test_the_background_is_replaced_with_the_given_chance():
    levels = torch.tensor([-0.8, 0.8]).repeat(200)
    flat = levels.view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    for chance in (0.25, 0.75):
        views = only_background(background=chance)._behind(flat, torch.Generator().manual_seed(6))
        changed = (views[:, 0, 0, 0] * levels < 0).float().mean()
        assert abs(float(changed) - chance) < 0.08


def test_whole_views_have_other_backgrounds():
    levels = torch.tensor([-0.6, 0.6]).repeat(20)
    flat = levels.view(-1, 1, 1, 1).expand(-1, 3, 64, 64)
    always, never = (only_background(background=chance) for chance in (1.0, 0.0))
    apart = []
    for augment in (always, never):
        views = augment(flat, 64, torch.Generator().manual_seed(7))
        apart.append(
            float((views[:, :, 28:44, 26:38].mean((1, 2, 3)) - views[:, :, :6, :6].mean((1, 2, 3))).abs().mean())
        )
    assert apart[0] > apart[1] + 0.8


def test_voice_crops_have_the_requested_length():
    augment = VoiceAugmentation()
    mel = torch.randn(1, 64, 50, generator=torch.Generator().manual_seed(0))
    for frames in (20, 50, 170):
        crop = augment(mel, frames, torch.Generator().manual_seed(frames))
        assert crop.shape == (1, 64, frames)
        assert bool(crop.isfinite().all())


def test_voice_crops_do_not_modify_the_recording():
    mel = torch.randn(1, 64, 90, generator=torch.Generator().manual_seed(0))
    before = mel.clone()
    one, two = (VoiceAugmentation()(mel, 60, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(mel, before)
    assert torch.equal(one, two)


def test_the_telephone_variant_is_band_limited_to_4_khz():
    rng = np.random.default_rng(0)
    samples = (3000 * rng.standard_normal(16_000)).astype(np.int16)
    variants = recording_variants(samples, np.random.Generator(np.random.Philox(1)))
    assert np.array_equal(variants[0], samples)  # the first variant is unchanged
    assert all(each.dtype == np.int16 and each.shape == samples.shape for each in variants)
    power = np.abs(np.fft.rfft(variants[1].astype(float))) ** 2
    assert power[5000:].sum() < 0.05 * power[:3000].sum()
