from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import cmpc2
from cmpc2 import CMPC, decode, log_mel, speech_only
from tests.support.comparison import relative_error


@pytest.fixture(scope="module")
def model(reference, tmp_path_factory) -> CMPC:
    """Loaded from a file in the format of multi-GPU training, so that `load` receives all published keys."""
    path = tmp_path_factory.mktemp("checkpoint") / "cmpc.pth.tar"
    state = {f"module.{key}": value for key, value in reference.state_dict("cmpc2").items()}
    torch.save({"model": state, "epoch": 100}, path)
    loaded = cmpc2.load(path).requires_grad_(False)
    path.unlink()
    return loaded


def test_voice_embedding(reference, model, wave):
    fbank = torch.from_numpy(reference.array(f"frontend_{wave}", "fbank"))
    embedding = model.encode_voice(fbank[None])
    assert relative_error(embedding.detach(), reference.array(f"frontend_{wave}", "voice_embedding")) < 1e-3


def test_voice_embedding_of_a_file(reference, model, wave):
    fbank = torch.from_numpy(log_mel(speech_only(decode(reference.vectors / f"{wave}.wav"))))
    embedding = model.encode_voice(fbank[None])
    assert relative_error(embedding.detach(), reference.array(f"frontend_{wave}", "voice_embedding")) < 1e-3


def face_gradient(reference, model, size: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(embedding [2, 512], distance [2] to the first wave's voice, gradient [2, 3, S, S] of their sum)."""
    voice = torch.from_numpy(reference.array(f"frontend_{reference.meta['waves'][0]}", "voice_embedding"))
    drawn = np.clip(0.5 * reference.normal((2, 3, size, size), f"face_{size}"), -1, 1)
    images = torch.from_numpy(drawn).to(dtype).requires_grad_()
    embedding = deepcopy(model.face_subnet).to(dtype)(images)
    distance = 1 - F.cosine_similarity(embedding, voice.to(dtype))
    (gradient,) = torch.autograd.grad(distance.sum(), images)
    return embedding.detach(), distance.detach(), gradient


def test_face_embedding_and_gradient_in_float64(reference, model, face_size):
    name = f"face_{face_size}"
    embedding, distance, gradient = face_gradient(reference, model, face_size, torch.float64)
    assert relative_error(embedding, reference.array(name, "embedding")) < 1e-9
    np.testing.assert_allclose(distance, reference.array(name, "distance"), rtol=0, atol=1e-9)
    assert relative_error(F.adaptive_avg_pool2d(gradient, 8), reference.array(name, "grad_8x8")) < 1e-9
    np.testing.assert_allclose(gradient.flatten(1).norm(dim=1), reference.array(name, "grad_norm"), rtol=1e-9)


def test_face_embedding_and_gradient_in_float32(reference, model, face_size):
    name = f"face_{face_size}"
    embedding, distance, gradient = face_gradient(reference, model, face_size, torch.float32)
    assert relative_error(embedding, reference.array(name, "embedding")) < 1e-3
    np.testing.assert_allclose(distance, reference.array(name, "distance"), rtol=0, atol=1e-4)
    # Below 3e-6 if the input of every ReLU has the same sign as in float64. A single sign of five million that changes
    # by rounding can cause up to 1e-2, with any implementation of the convolutions.
    assert relative_error(F.adaptive_avg_pool2d(gradient, 8), reference.array(name, "grad_8x8")) < 5e-2
    np.testing.assert_allclose(gradient.flatten(1).norm(dim=1), reference.array(name, "grad_norm"), rtol=5e-2)
