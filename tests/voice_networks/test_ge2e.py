"""GE2E with its real weights: against a plain LSTM in float64; windows, batches, scripting, damaged files."""

import hashlib
import zipfile

import pytest
import torch
import torch.nn.functional as F

from tests.voice_networks.conftest import WHEELS
from voicestyle import torchscript
from voicestyle.errors import CheckpointError
from voicestyle.voice_networks import Ge2e, fetch_ge2e, read_ge2e
from voicestyle.voice_networks import ge2e as module


def plain_lstm(weights, frames):
    """The last output [256] of three LSTM layers over frames [160, 40], one gate and one step at a time."""
    for layer in range(3):
        w, u, b, c = (weights[f"lstm.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        hidden, cell, outputs = torch.zeros(256).double(), torch.zeros(256).double(), []
        for frame in frames:
            into, forget, candidate, out = (w @ frame + b + u @ hidden + c).split(256)
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(candidate)
            hidden = torch.sigmoid(out) * torch.tanh(cell)
            outputs.append(hidden)
        frames = torch.stack(outputs)
    return frames[-1]


def plain_embedding(network, features):
    """Features [1, 40, T] to a unit vector [256], float64."""
    weights = {name: value.double() for name, value in network.state_dict().items()}
    total = torch.zeros(256).double()
    for start in range(0, features.size(2) - 159, 77):
        raw = weights["linear.weight"] @ plain_lstm(weights, features[0, :, start : start + 160].T.double())
        raw = (raw + weights["linear.bias"]).clamp(min=0)
        total += raw / raw.norm()
    return total / total.norm()


@pytest.fixture(scope="module")
def features(front_end, speech):
    return {name: front_end(samples) for name, samples in speech.items()}


def test_vectors_are_those_of_a_plain_lstm(ge2e, features):
    for of_voice in (features["slt"][:, :, :314], features["rms"][:, :, :200]):
        vector = ge2e(of_voice[None])
        assert vector.shape == (1, 256)
        torch.testing.assert_close(vector[0].double(), plain_embedding(ge2e, of_voice), rtol=0, atol=2e-6)


def test_vectors_have_length_one_and_no_negative_values(ge2e, features):
    for of_voice in features.values():
        vector = ge2e(of_voice[None])
        torch.testing.assert_close(vector.norm(), torch.tensor(1.0))
        assert vector.min() == 0


def test_recordings_of_one_speaker_are_alike(ge2e, front_end, speech):
    first = torch.cat([ge2e(front_end(samples[: len(samples) // 2])[None]) for samples in speech.values()])
    second = torch.cat([ge2e(front_end(samples[len(samples) // 2 :])[None]) for samples in speech.values()])
    cosines = first @ second.T
    assert cosines.diag().min() > cosines[~torch.eye(3, dtype=torch.bool)].max() + 0.1


def test_half_a_second_still_resembles_its_speaker(ge2e, front_end, speech):
    short = torch.cat([ge2e(front_end(samples[8000:16000])[None]) for samples in speech.values()])
    rest = torch.cat([ge2e(front_end(samples[16000:])[None]) for samples in speech.values()])
    assert (short @ rest.T).argmax(dim=1).tolist() == [0, 1, 2]


def test_a_vector_does_not_depend_on_the_batch(ge2e, features):
    shortest = min(of_voice.size(2) for of_voice in features.values())
    batch = torch.stack([of_voice[:, :, :shortest] for of_voice in features.values()])
    together = ge2e(batch)
    assert torch.equal(together, ge2e(batch))
    for item, vector in zip(batch, together, strict=True):
        torch.testing.assert_close(ge2e(item[None])[0], vector, rtol=0, atol=1e-6)


def test_frames_after_the_last_window_do_not_count(ge2e, features):
    of_voice = features["slt"][None, :, :, :237]
    torch.testing.assert_close(ge2e(F.pad(of_voice, (0, 76))), ge2e(of_voice), rtol=0, atol=1e-6)
    assert (ge2e(F.pad(of_voice, (0, 77))) - ge2e(of_voice)).abs().max() > 1e-3


def test_silence_has_a_finite_vector(ge2e, front_end):
    assert ge2e(front_end(torch.zeros(20000))[None]).isfinite().all()


@pytest.mark.parametrize("shape", [(1, 1, 40, 159), (1, 1, 64, 200), (1, 2, 40, 200), (1, 40, 200)])
def test_other_features_are_an_error_that_states_the_rule(ge2e, shape):
    with pytest.raises(ValueError, match=r"features must be \[N, 1, 40, T\], T ≥ 160; received \[1, "):
        ge2e(torch.zeros(shape))


def test_the_stored_form_gives_the_same_bits(ge2e, features, tmp_path):
    torchscript.save(ge2e, tmp_path / "voice_encoder.pt")
    stored = torchscript.load(tmp_path / "voice_encoder.pt", "cpu")
    with torch.inference_mode():
        for of_voice in features.values():
            for _ in range(3):  # TorchScript optimises in the first calls
                assert torch.equal(stored(of_voice[None]), ge2e(of_voice[None]))


def test_gradients_reach_features_and_weights(features):
    network = Ge2e()
    of_voice = features["slt"][None, :, :, :237].clone().requires_grad_(True)
    network(of_voice)[0, :128].sum().backward()
    assert of_voice.grad.abs().sum() > 0
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


def test_the_network_is_frozen(ge2e):
    assert not ge2e.training
    assert not any(weight.requires_grad for weight in ge2e.parameters())


def wheel_with(tmp_path, content, name=module.WEIGHTS):
    path = tmp_path / module.WHEEL_NAME
    with zipfile.ZipFile(path, "w") as members:
        members.writestr(name, content)
    return path


def test_a_wheel_on_disk_with_other_weights_is_named(tmp_path):
    wheel_with(tmp_path, b"other")
    with pytest.raises(CheckpointError, match=r"pretrained.pt in .*Resemblyzer.* must have the SHA-256 39373b.*, got"):
        fetch_ge2e(tmp_path)


def test_a_wheel_without_the_weights_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="must contain resemblyzer/pretrained.pt, which is missing"):
        read_ge2e(wheel_with(tmp_path, b"", "resemblyzer/other.pt"))


def test_a_damaged_wheel_is_named(tmp_path, ge2e):
    whole = (WHEELS / module.WHEEL_NAME).read_bytes()
    path = tmp_path / module.WHEEL_NAME
    for damaged in (b"", b"no archive", whole[: len(whole) // 2], whole[:5_000_000] + b"\0" * 64 + whole[5_000_064:]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"Resemblyzer-0.1.4-py3-none-any.whl must be the wheel of Resem"):
            read_ge2e(path)
    with pytest.raises(FileNotFoundError):
        read_ge2e(tmp_path / "absent.whl")


def test_weights_of_another_shape_are_named(tmp_path, monkeypatch):
    weights = Ge2e().state_dict() | {"linear.bias": torch.zeros(128), "similarity_bias": torch.zeros(1)}
    torch.save({"model_state": weights}, tmp_path / "other.pt")
    content = (tmp_path / "other.pt").read_bytes()
    monkeypatch.setattr(module, "WEIGHTS_SHA256", hashlib.sha256(content).hexdigest())
    with pytest.raises(CheckpointError, match=r"exactly the weights of GE2E. wrong shape: linear.bias \[128\]"):
        read_ge2e(wheel_with(tmp_path, content))


@pytest.mark.gpu
def test_a_gpu_computes_the_same(features):
    on_gpu = fetch_ge2e(WHEELS).cuda()(features["slt"][None].cuda())
    torch.testing.assert_close(on_gpu.cpu(), fetch_ge2e(WHEELS)(features["slt"][None]), rtol=0, atol=1e-4)
