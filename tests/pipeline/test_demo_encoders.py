"""The demo's encoders with random weights: their stored form, bfloat16, gradients, and how far the sex can go."""

import pytest
import torch
from torch.nn import functional as F

from voicestyle import torchscript
from voicestyle.demo_encoders import IMAGE_SIZE, VOICE_DIM, FaceEncoder, FaceHead, VoiceEncoder, VoiceHead
from voicestyle.face_networks import DlibResNet
from voicestyle.voice_networks import Ge2e

DIM = 16


@pytest.fixture(scope="module")
def face_encoder():
    torch.manual_seed(0)
    head = FaceHead(DIM, hidden=24)
    torch.nn.init.normal_(head.mean)
    torch.nn.init.uniform_(head.scale, 0.5, 2)
    network = DlibResNet()
    for weight in network.parameters():  # torch's initial weights would let the activations fade
        if weight.ndim == 4:
            torch.nn.init.kaiming_normal_(weight)
    return FaceEncoder(network, head).eval()


@pytest.fixture(scope="module")
def voice_encoder():
    torch.manual_seed(1)
    head = VoiceHead(DIM)
    torch.nn.init.constant_(head.sex_length, 0.7)
    return VoiceEncoder(Ge2e(), head).eval()


@pytest.fixture(scope="module")
def images():
    coarse = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    return F.interpolate(coarse, [IMAGE_SIZE, IMAGE_SIZE], mode="bilinear")


@pytest.fixture(scope="module")
def features():
    return torch.rand(2, 1, 40, 237, generator=torch.Generator().manual_seed(3))


def stored(module, path, dtype=torch.float32):
    torchscript.save(module, path)
    return torchscript.load(path, "cpu", dtype)


@torch.inference_mode()
def test_the_stored_face_encoder_gives_the_same(face_encoder, images, tmp_path):
    compiled = stored(face_encoder, tmp_path / "face_encoder.pt")
    expected = face_encoder(images)
    for _ in range(2):  # TorchScript optimises in the first calls
        torch.testing.assert_close(compiled(images), expected, rtol=1e-5, atol=1e-4)


@torch.inference_mode()
def test_the_stored_voice_encoder_gives_the_same(voice_encoder, features, tmp_path):
    compiled = stored(voice_encoder, tmp_path / "voice_encoder.pt")
    expected = voice_encoder(features)
    for _ in range(2):
        torch.testing.assert_close(compiled(features), expected, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_bfloat16_is_close(face_encoder, images, tmp_path):
    low = stored(face_encoder, tmp_path / "face_encoder.pt", torch.bfloat16)(images)
    exact = face_encoder(images)
    assert low.dtype == torch.float32
    assert not torch.equal(low, exact)
    assert F.cosine_similarity(low, exact).min() > 0.999
    assert (low - exact).norm(dim=1).max() < 0.25 * (exact[0] - exact[1]).norm()


def test_the_gradient_reaches_the_image(face_encoder, images, tmp_path):
    """Through the stored form too, and inside the crop of the face alone."""
    gradients = []
    for encoder in (face_encoder, stored(face_encoder, tmp_path / "face_encoder.pt")):
        image = images[:1].clone().requires_grad_(True)
        F.normalize(encoder(image), dim=1)[0, 0].backward()
        gradients.append(image.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3 * float(gradients[0].abs().max()))
    reached = gradients[0].abs().sum((0, 1)) > 0
    assert reached[67:240, 42:215].float().mean() > 0.9
    reached[67:240, 42:215] = False
    assert not reached.any()


@torch.inference_mode()
def test_what_is_outside_the_crop_changes_nothing(face_encoder, images):
    outside = torch.zeros_like(images)
    outside[:, :, 67:240, 42:215] = images[:, :, 67:240, 42:215]
    assert torch.equal(face_encoder(outside), face_encoder(images))


@torch.inference_mode()
def test_the_sex_component_is_bounded_by_its_length():
    torch.manual_seed(4)
    head = VoiceHead(DIM)
    head.sex_length.fill_(0.7)
    head.sex.weight.mul_(40)
    embeddings = head(torch.randn(500, VOICE_DIM))
    assert embeddings.shape == (500, DIM)
    sex = embeddings[:, -1]
    assert sex.abs().max() <= 0.7
    assert sex.abs().median() > 0.69  # most voices are near one of the two values
    assert (sex > 0).float().mean() == pytest.approx(0.5, abs=0.1)
    assert embeddings[:, :-1].abs().max() > 0.7


@torch.inference_mode()
def test_the_sex_component_is_the_sign_of_its_score():
    head = VoiceHead(DIM)
    vectors = torch.randn(50, VOICE_DIM, generator=torch.Generator().manual_seed(5))
    assert torch.equal(head(vectors)[:, -1].sign(), head.sex(vectors)[:, 0].sign())


@torch.inference_mode()
def test_descriptors_are_standardised(face_encoder):
    """Other units of the descriptors, with the mean and the scale in these units, give the same embeddings."""
    head = face_encoder.head
    other = FaceHead(DIM, hidden=24).eval()
    other.load_state_dict(head.state_dict())
    other.mean.mul_(10).add_(3)
    other.scale.mul_(10)
    descriptors = torch.randn(8, 128, generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(other(10 * descriptors + 3), head(descriptors), rtol=1e-4, atol=1e-4)


def test_dropout_is_off_in_evaluation(face_encoder):
    head = FaceHead(DIM, hidden=24)
    descriptors = torch.randn(4, 128, generator=torch.Generator().manual_seed(7))
    assert not torch.equal(head(descriptors), head(descriptors))
    head.eval()
    assert torch.equal(head(descriptors), head(descriptors))
