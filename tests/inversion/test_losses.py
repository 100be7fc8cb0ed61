"""Properties of the inversion losses that hold for any weights."""

import pytest
import torch

from voicestyle.errors import CheckpointError
from voicestyle.face_networks import IrSe50
from voicestyle.inversion import EdgeTerm, IdentityTerm, LossFiles, PerceptualTerm, PixelTerm, load_loss
from voicestyle.inversion.perceptual import STAGES


@pytest.fixture(scope="module")
def vgg():
    """Random weights under torchvision's names: a ReLU after each convolution, a pooling after each stage."""
    torch.manual_seed(0)
    weights, index, channels = {}, 0, 3
    for stage in STAGES:
        for width in stage:
            weights[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3) * (2 / channels / 9) ** 0.5
            weights[f"features.{index}.bias"] = torch.zeros(width)
            index, channels = index + 2, width
        index += 1
    return weights


def images(count, size):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_perceptual_loss_of_equal_images_is_zero(vgg):
    loss = PerceptualTerm(vgg, None)
    pictures = images(2, 32)
    assert loss(pictures, loss.target(pictures)).tolist() == [0, 0]
    assert (loss(pictures.flip(0), loss.target(pictures)) > 0).all()


def test_the_perceptual_loss_does_not_cross_items(vgg):
    loss = PerceptualTerm(vgg, None)
    pictures, targets = images(3, 32), images(3, 32).flip(0)
    alone = [loss(pictures[i : i + 1], loss.target(targets[i : i + 1])) for i in range(3)]
    torch.testing.assert_close(loss(pictures, loss.target(targets)), torch.cat(alone))


def test_weights_that_do_not_fit_are_named(vgg):
    short = {name: weight for name, weight in vgg.items() if name != "features.28.bias"}
    with pytest.raises(CheckpointError, match=r"VGG-16 must have features.28.bias with shape \[512\], got None"):
        PerceptualTerm(short, None)
    with pytest.raises(CheckpointError, match="the linear layers of LPIPS must have shapes"):
        PerceptualTerm(vgg, [torch.ones(1, 64, 1, 1)])
    with pytest.raises(CheckpointError, match="must be the state dict of an IR-SE50"):
        IrSe50.from_state_dict({})


def test_identity_needs_images_of_256_pixels():
    loss = IdentityTerm(IrSe50().eval())
    with pytest.raises(ValueError, match=r"images must be \[N, 3, 256, 256\], got \[1, 3, 224, 224\]"):
        loss.target(images(1, 224))


def test_an_identity_file_is_read_back(tmp_path):
    torch.manual_seed(2)
    network = IrSe50().eval()
    torch.save(network.state_dict(), tmp_path / "model_ir_se50.pth")
    faces = images(1, 112)
    with torch.no_grad():
        torch.testing.assert_close(IrSe50.read(tmp_path / "model_ir_se50.pth")(faces), network(faces))
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"broken.pth must be a torch file of plain tensors"):
        IrSe50.read(tmp_path / "broken.pth")


def plain_edges(image, target):
    """EdgeTerm of one image, written out."""
    total, levels = 0.0, 4
    difference = image - target
    for level in range(levels):
        if level:
            difference = torch.nn.functional.avg_pool2d(difference[None], 2)[0]
        total = total + (difference[:, 1:] - difference[:, :-1]).abs().mean()
        total = total + (difference[:, :, 1:] - difference[:, :, :-1]).abs().mean()
    return total / levels


def plain_pixels(image, target):
    """PixelTerm of one image, written out."""
    sizes = (256, 128, 64, 32)
    pooled = [torch.nn.functional.adaptive_avg_pool2d(image - target, size) for size in sizes]
    return sum((each**2).mean() for each in pooled) / len(sizes)


@pytest.mark.parametrize(("term", "plain"), [(EdgeTerm(), plain_edges), (PixelTerm(), plain_pixels)])
def test_pixels_and_edges_equal_plain_code_with_gradients(term, plain):
    pictures, targets = images(2, 256).double().requires_grad_(), images(2, 256).flip(0).double()
    distance = term(pictures, term.target(targets))
    expected = torch.stack([plain(*pair) for pair in zip(pictures, targets, strict=True)])
    torch.testing.assert_close(distance, expected)
    found, wanted = (torch.autograd.grad(each.sum(), pictures)[0] for each in (distance, expected))
    torch.testing.assert_close(found, wanted)


@pytest.fixture
def loss_files(vgg, tmp_path):
    """A VGG-16, its LPIPS layers and an IR-SE50 in the published forms."""
    torch.save(vgg, tmp_path / "vgg16.pth")
    linear = {f"lin{i}.model.1.weight": torch.rand(1, stage[-1], 1, 1) for i, stage in enumerate(STAGES)}
    torch.save(linear, tmp_path / "lpips.pth")
    torch.manual_seed(3)
    torch.save(IrSe50().eval().state_dict(), tmp_path / "ir_se50.pth")
    return LossFiles(vgg=tmp_path / "vgg16.pth", lpips=tmp_path / "lpips.pth", identity=tmp_path / "ir_se50.pth")


@pytest.mark.long
def test_the_published_loss_in_bfloat16_is_near_float32(loss_files):
    photograph, image = images(2, 256)
    exact, rounded = load_loss(loss_files), load_loss(loss_files, dtype=torch.bfloat16)
    assert exact.name == "LPIPS (vgg16.pth) + identity by ArcFace IR-SE50 (ir_se50.pth)"
    assert exact.figures == ("perceptual", "identity")
    values = []
    for loss in (exact, rounded):
        given = image[None].clone().requires_grad_()
        total, figures = loss(given, [part[None] for part in loss.target(photograph)])
        assert total.dtype == figures.dtype == torch.float32
        torch.testing.assert_close(total, figures.sum(dim=1))
        values.append((figures.detach(), torch.autograd.grad(total.sum(), given)[0].flatten()))
    torch.testing.assert_close(values[1][0], values[0][0], rtol=0.05, atol=0.02)
    assert torch.nn.functional.cosine_similarity(values[0][1], values[1][1], dim=0) > 0.9


def test_each_missing_file_has_a_named_stand_in(loss_files):
    assert load_loss().name == (
        "10 · squared difference of pixels + 10 · difference of edges + "
        "3 · identity by dlib ResNet (face-api 1.7.15, 8 bit)"
    )
    unweighted = load_loss(LossFiles(vgg=loss_files.vgg, unweighted=True, identity=loss_files.identity))
    assert unweighted.name.startswith("unweighted VGG-16 features (vgg16.pth) + identity by ArcFace")
    with pytest.raises(CheckpointError, match="the linear layers of LPIPS need a VGG-16 file"):
        LossFiles(lpips=loss_files.lpips)
    with pytest.raises(CheckpointError, match="unweighted features need a VGG-16 file, got none"):
        LossFiles(unweighted=True)
    with pytest.raises(CheckpointError, match="unweighted features have no linear layers"):
        LossFiles(vgg=loss_files.vgg, lpips=loss_files.lpips, unweighted=True)
