"""The objective of CMPC against plain loops in float64, with gradients."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from voicestyle.training.cmpc import CmpcObjective, CmpcOptions
from voicestyle.training.errors import TrainingError

VIDEOS, BATCH, DIM = 40, 6, 5
OPTIONS = CmpcOptions(levels=(4, 7), warm_up_epochs=1, cluster_every=2, temperature=0.2)


def embeddings(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, DIM, generator=generator, dtype=torch.float64), dim=1)


def objective(options=OPTIONS, epochs=2):
    """An objective whose banks have all videos, after the start of so many epochs."""
    made = CmpcObjective(VIDEOS, DIM, options)
    made.memory.update(torch.arange(VIDEOS), embeddings(VIDEOS, 1), embeddings(VIDEOS, 2))
    for epoch in range(epochs):
        made.start_epoch(epoch)
    return made


def a_batch():
    rows = torch.tensor([3, 39, 0, 17, 8, 21])
    voices, faces = (embeddings(BATCH, seed).requires_grad_() for seed in (3, 4))
    return SimpleNamespace(rows=rows), voices, faces


def log_softmax_of(positive, others):
    return positive - torch.log(sum(torch.exp(other) for other in others))


def plain_loss(made, rows, voices, faces):
    """The sum of the paper, pair by pair."""
    options = made.options
    per_pair, weights, rhos = [], [], []
    for i, row in enumerate(rows.tolist()):
        loss = 0.0
        for mine, theirs, other in ((voices, faces, "face"), (faces, voices, "voice")):
            cosines = [torch.dot(mine[i], theirs[j]) / options.temperature for j in range(len(rows))]
            loss = loss - log_softmax_of(cosines[i], cosines)
            for level in made.prototypes.get(other, []):
                centroids, phi = level["centroids"].double(), level["temperature"].double()
                logits = [torch.dot(mine[i], centroid) / t for centroid, t in zip(centroids, phi, strict=True)]
                own = int(level["assignments"][row])
                loss = loss - log_softmax_of(logits[own], logits) / len(options.levels)
        per_pair.append(loss)
        levels = zip(made.prototypes["voice"], made.prototypes["face"], strict=True)
        prototype = [
            float(torch.dot(v["centroids"][v["assignments"][row]], f["centroids"][f["assignments"][row]]))
            for v, f in levels
        ]
        rhos.append(float(torch.dot(voices[i], faces[i]).detach()) - sum(prototype) / len(prototype))
    mean = sum(rhos) / len(rhos)
    deviation = math.sqrt(sum((rho - mean) ** 2 for rho in rhos) / len(rhos))
    for rho in rhos:
        scaled = (rho - (mean + options.delta * deviation)) / (math.sqrt(options.kappa) * deviation)
        weights.append(0.5 * (1 + math.erf(scaled / math.sqrt(2))))
    return sum(w * loss for w, loss in zip(weights, per_pair, strict=True)) / sum(weights), weights


def test_the_objective_equals_its_plain_form_with_gradients():
    made = objective()
    batch, voices, faces = a_batch()
    plain, weights = plain_loss(made, batch.rows, voices, faces)
    fast = made.losses(batch, voices, faces)
    assert float(fast["weight"]) == pytest.approx(sum(weights) / len(weights), abs=1e-6)
    torch.testing.assert_close(fast["loss"], plain, rtol=1e-6, atol=1e-6)  # prototypes are float32
    torch.testing.assert_close(fast["loss"], fast["instance"] + fast["prototype"])
    for one, two in zip(
        torch.autograd.grad(fast["loss"], [voices, faces]), torch.autograd.grad(plain, [voices, faces]), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


def test_the_warm_up_has_instance_contrast_alone():
    made = objective(epochs=1)
    batch, voices, faces = a_batch()
    losses = made.losses(batch, voices, faces)
    assert "prototype" not in losses
    assert float(losses["weight"]) == 1
    logits = voices @ faces.T / 0.2
    expected = F.cross_entropy(logits, torch.arange(BATCH)) + F.cross_entropy(logits.T, torch.arange(BATCH))
    torch.testing.assert_close(losses["loss"], expected, rtol=0, atol=1e-12)


def test_clusters_are_found_after_the_warm_up_every_second_epoch():
    made = objective(replace(OPTIONS, warm_up_epochs=2), epochs=2)
    assert not made.prototypes
    made.start_epoch(2)
    first = made.prototypes
    assert [len(level["centroids"]) for level in first["voice"]] == [4, 7]
    made.start_epoch(3)
    assert made.prototypes is first
    made.start_epoch(4)
    assert made.prototypes is not first


def test_negatives_of_the_memory_banks_equal_their_plain_form():
    made = objective(replace(OPTIONS, negatives=9), epochs=1)
    made.memory.face[5] = 0  # a video that was not seen yet is no negative
    bank = {name: features.double().clone() for name, features in made.memory.features.items()}
    batch, voices, faces = a_batch()
    with pytest.MonkeyPatch.context() as patch:
        drawn = torch.tensor([3, 5, 9, 11, 21, 21, 30, 31, 5])
        patch.setattr("voicestyle.training.cmpc.torch.randint", lambda *_, **__: drawn)
        fast = made.losses(batch, voices, faces)["loss"]
    total = 0.0
    for mine, theirs, other in ((voices, faces, "face"), (faces, voices, "voice")):
        for i, row in enumerate(batch.rows.tolist()):
            cosines = [torch.dot(mine[i], theirs[j]) / 0.2 for j in range(BATCH)]
            usable = [k for k in drawn.tolist() if k != row and bank[other][k].any()]
            more = [torch.dot(mine[i], bank[other][k]) / 0.2 for k in usable]
            total = total - log_softmax_of(cosines[i], cosines + more) / BATCH
    torch.testing.assert_close(fast, total, rtol=0, atol=1e-7)
    for one, two in zip(
        torch.autograd.grad(fast, [voices, faces]), torch.autograd.grad(total, [voices, faces]), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-7)


def test_drawn_negatives_depend_on_the_step_alone():
    def loss(step):
        made = objective(replace(OPTIONS, negatives=20), epochs=1)
        made.restore(made.state() | {"steps": step})
        return float(made.losses(*a_batch())["loss"].detach())

    assert loss(4) == loss(4)
    assert loss(4) != loss(5)


def test_a_bad_pair_weighs_less():
    made = objective()
    batch, voices, faces = a_batch()
    good, bad = voices.detach().clone(), voices.detach().clone()
    bad[0] = -bad[0]
    weights = made._weights(batch.rows, bad, good)
    assert float(weights[0]) < 0.01
    assert float(weights[1:].min()) > 0.1
    plain = replace(OPTIONS, reweighting=False)
    assert objective(plain)._weights(batch.rows, bad, faces).tolist() == [1.0] * BATCH


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"levels": ()}, "levels must be"),
        ({"levels": (1,)}, "levels must be"),
        ({"temperature": 0.0}, "temperature, prototype_temperature and kappa must be positive"),
        ({"memory_momentum": 1.0}, r"memory_momentum must be in \[0, 1\), received 1.0"),
        ({"warm_up_epochs": 0}, "warm_up_epochs, cluster_every"),
        ({"negatives": -1}, "negatives and prototype_weight"),
    ],
)
def test_invalid_options_are_rejected(wrong, message):
    with pytest.raises(TrainingError, match=message):
        replace(OPTIONS, **wrong)


def test_more_prototypes_than_videos_are_rejected():
    with pytest.raises(TrainingError, match="at most the number of videos 6"):
        CmpcObjective(6, DIM, OPTIONS)
