"""The fit of the 256-pixel head on a small network."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from voicestyle.generators import MobileStyleGAN, MobileStyleGANConfig
from voicestyle.generators.mobilestylegan import ImageHead
from voicestyle.training.head import Coordinates, HeadOptions, fit_head, measure_head, save_head
from voicestyle.training.head_patches import Patches, PatchOptions, draw_patches, training_latent

CONFIG = MobileStyleGANConfig(base_width=16, widths=(16, 16, 8), head_blocks=2, head_widths=(8, 4))
PATCHES = PatchOptions(faces=24, per_face=2, size=8)
FIT = HeadOptions(epochs=4, batch_size=8)


class InterruptedRunError(Exception):
    pass


def stop_after(count: int) -> object:
    def steps(planned: range) -> Iterator[int]:
        for done, step in enumerate(planned):
            if done == count:
                raise InterruptedRunError
            yield step

    return steps


@pytest.fixture(scope="module")
def generator() -> MobileStyleGAN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = MobileStyleGAN(CONFIG).eval()
        with torch.no_grad():
            generator.input.normal_()
            for name, value in generator.state_dict().items():
                if "style" in name and name.endswith("bias"):
                    value.add_(1.0)
    return generator


@pytest.fixture(scope="module")
def patches(generator: MobileStyleGAN, tmp_path_factory: pytest.TempPathFactory) -> Patches:
    return draw_patches(generator, tmp_path_factory.mktemp("patches"), PATCHES, iter)


def new_head() -> ImageHead:
    return ImageHead(16, CONFIG.head_widths).requires_grad_(False)


def test_patches_are_crops_of_the_face(generator: MobileStyleGAN, patches: Patches) -> None:
    assert patches.features.shape == (24, 2, 16, 8, 8)
    assert patches.images.shape == (24, 2, 3, 16, 16)
    w = training_latent(generator, 3)
    torch.testing.assert_close(patches.w[3:4], w)
    image = generator.render(w, [], 32)[0]
    windows = image.unfold(1, 16, 2).unfold(2, 16, 2).permute(1, 2, 0, 3, 4)
    patch = torch.from_numpy(patches.images[3, 0]).float()
    assert (windows - patch).abs().amax(dim=(2, 3, 4)).min() < 1e-3


def test_an_interrupted_drawing_is_resumed(generator: MobileStyleGAN, patches: Patches, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        draw_patches(generator, tmp_path, PATCHES, stop_after(20))
    again = draw_patches(generator, tmp_path, PATCHES, iter)
    np.testing.assert_array_equal(again.features, patches.features)
    np.testing.assert_array_equal(again.images, patches.images)
    with pytest.raises(ValueError, match="use another folder"):
        draw_patches(generator, tmp_path, PatchOptions(faces=25, per_face=2, size=8), iter)


def test_whitened_coordinates_are_merged_into_the_weights(patches: Patches) -> None:
    """With initial parameters and without its hidden path, the head is the least-squares map of the features."""
    coordinates = Coordinates(patches)
    head = new_head()
    parameters = coordinates.start(head, torch.Generator().manual_seed(0))
    parameters["out.weight"].zero_()
    head.load_state_dict(coordinates.fold(parameters))
    x = torch.from_numpy(patches.features[:, 0]).float()
    target = torch.from_numpy(patches.images[:, 0]).float()
    assert (head(x, patches.w) - target).square().mean() < 0.5 * target.var()


def test_fitting_lowers_the_error_and_can_be_resumed(patches: Patches, tmp_path: Path) -> None:
    whole, halves, untrained = new_head(), new_head(), new_head()
    fit_head(untrained, patches, HeadOptions(epochs=1, learning_rate=1e-9), tmp_path / "untrained.pt", iter)
    fit_head(whole, patches, FIT, tmp_path / "whole.pt", iter)
    with pytest.raises(InterruptedRunError):
        fit_head(halves, patches, FIT, tmp_path / "halves.pt", stop_after(15))
    fit_head(halves, patches, FIT, tmp_path / "halves.pt", iter)
    x = torch.from_numpy(patches.features[:, 1]).float()
    target = torch.from_numpy(patches.images[:, 1]).float()
    # Compare images, not weights: multi-threaded sums differ in the last digit, and w hardly varies here.
    torch.testing.assert_close(halves(x, patches.w), whole(x, patches.w), rtol=0, atol=1e-3 * target.std().item())
    before, after = ((head(x, patches.w) - target).square().mean() for head in (untrained, whole))
    assert after < before
    with pytest.raises(ValueError, match=r"whole\.pt must have the options"):
        fit_head(new_head(), patches, HeadOptions(epochs=5), tmp_path / "whole.pt", iter)


def test_measured_psnr_is_finite_and_weights_are_saved(generator: MobileStyleGAN, tmp_path: Path) -> None:
    psnr = measure_head(generator, range(3), iter)
    assert psnr.shape == (3,)
    assert np.isfinite(psnr).all()
    save_head(generator.head, tmp_path / "head.npz")
    with np.load(tmp_path / "head.npz", allow_pickle=False) as archive:
        assert archive["direct.weight"].dtype == np.float16
        assert archive.keys() - {"wheel_sha256"} == generator.head.state_dict().keys()


@pytest.mark.parametrize(
    ("options", "wrong"),
    [(HeadOptions, {"epochs": 0}), (HeadOptions, {"learning_rate": -1.0}), (PatchOptions, {"size": 5})],
)
def test_invalid_options_are_rejected(options: type, wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        options(**wrong)
