"""Whole inversions with a narrow generator: independence of the batch, seeds, w and w+, figures of the result."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.networks import stylegan2_weights
from tests.support.tiny_face_network import TinyNetwork
from voicestyle.generators import StyleGAN2Config, read_stylegan2
from voicestyle.images import to_image, to_pixels
from voicestyle.inversion import IdentityTerm, InversionLoss, InversionOptions, Inverter, PixelTerm

STEPS = 6


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "stylegan2.pt"
    torch.save({"g_ema": stylegan2_weights(StyleGAN2Config(128, max_width=8))}, path)
    return read_stylegan2(path)[0]


@pytest.fixture(scope="module")
def photographs(generator):
    source = torch.Generator().manual_seed(0)
    found = []
    for number in range(8):
        w = generator.map(torch.randn(1, 512, generator=source))
        noise = [torch.randn(1, 1, *shape, generator=source) for shape in generator.noise_shapes]
        image = F.interpolate(generator(w, noise), (256, 256), mode="bilinear")
        found.append((f"person/{number}.jpg", to_pixels(image[0])))
    return found


def inverter(generator, batch=8, **options):
    network = TinyNetwork()
    loss = InversionLoss("tiny", [PixelTerm(10), IdentityTerm(network)], network)
    return Inverter(generator, loss, InversionOptions(steps=STEPS, **options), batch=batch)


def inverted(inverter, photographs):
    return {result.key: result for result in inverter.invert(photographs)}


@pytest.fixture(scope="module")
def of_eight(generator, photographs):
    return inverted(inverter(generator), photographs)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_latent_does_not_depend_on_batch_and_order(generator, photographs, of_eight, batch):
    found = inverted(inverter(generator, batch), photographs[::-1])
    assert found.keys() == of_eight.keys()
    for key, result in found.items():
        np.testing.assert_array_equal(result.latent, of_eight[key].latent)
        np.testing.assert_array_equal(result.image, of_eight[key].image)
        assert result.losses == of_eight[key].losses


def test_alone_equals_in_a_batch_of_eight(generator, photographs, of_eight):
    for photograph in photographs[::3]:
        (alone,) = inverter(generator).invert([photograph])
        np.testing.assert_array_equal(alone.latent, of_eight[alone.key].latent)


def test_key_and_seed_decide_the_noise(generator, photographs, of_eight):
    (key, pixels), *_ = photographs
    (renamed,) = inverter(generator).invert([("other", pixels)])
    (reseeded,) = inverter(generator, seed=1).invert([(key, pixels)])
    latents = [of_eight[key].latent, renamed.latent, reseeded.latent]
    assert all(not np.array_equal(latents[i], latents[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_figures_describe_the_image(photographs, of_eight):
    for key, pixels in photographs:
        result = of_eight[key]
        assert result.latent.shape == (512,)
        assert [len(values) for values in result.losses.values()] == [STEPS, STEPS]
        error = np.square(result.image.astype(float) - pixels).mean()
        assert result.psnr == pytest.approx(10 * np.log10(255**2 / error), abs=0.2)  # pixels are truncated
        ours, theirs = (TinyNetwork().embed(to_image(each)[None])[0] for each in (result.image, pixels))
        assert result.identity == pytest.approx(float(ours @ theirs), abs=1e-2)
    falls = [result.losses["pixels"][-1] < result.losses["pixels"][0] for result in of_eight.values()]
    assert sum(falls) >= 7


def test_w_plus_has_a_row_for_each_layer(generator, photographs):
    found = inverted(inverter(generator, w_plus=True), photographs[:2])
    for result in found.values():
        assert result.latent.shape == (generator.latent_rows, 512)
        assert (result.latent != result.latent[0]).any()


def test_steps_are_reported(generator, photographs):
    counts = []
    for _ in inverter(generator, batch=2).invert(photographs[:3], counts.append):
        pass
    assert counts == [2] * STEPS + [1] * STEPS


def test_a_call_that_is_not_finished_leaves_nothing_behind(generator, photographs, of_eight):
    used = inverter(generator, batch=2)
    call = used.invert(photographs[:3])
    next(call)
    call.close()
    with pytest.raises(ValueError, match="a photograph must be"):
        next(used.invert([photographs[0], ("small", np.zeros((64, 64, 3), np.uint8))]))
    (key, _), *_ = photographs
    found = inverted(used, photographs[:1])
    assert list(found) == [key]
    np.testing.assert_array_equal(found[key].latent, of_eight[key].latent)


def test_errors(generator, photographs):
    with pytest.raises(ValueError, match=r"a photograph must be \[256, 256, 3\], got \[64, 64, 3\]"):
        next(inverter(generator).invert([("small", np.zeros((64, 64, 3), np.uint8))]))
    for options, message in (
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0"),
        ({"seed": -1}, "seed must be in 0"),
    ):
        with pytest.raises(ValueError, match=message):
            InversionOptions(**options)
    assert (InversionOptions().learning_rate, InversionOptions(w_plus=True).learning_rate) == (0.1, 0.05)
