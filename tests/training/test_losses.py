"""Values and gradients of the losses against plain loops in float64."""

import torch
from torch.nn import functional as F

from voicestyle.training.losses import contrast_within, cross_modal_contrast, prototype_contrast


def embeddings(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    return F.normalize(points, dim=1).requires_grad_()


def plain_direction(anchors, others, same, temperature):
    total = anchors.new_zeros(())
    for i in range(len(anchors)):
        every = [torch.exp(torch.dot(anchors[i], other) / temperature) for other in others]
        positive = [value for j, value in enumerate(every) if same[i][j]]
        total = total - torch.log(sum(positive) / sum(every))
    return total / len(anchors)


def test_cross_modal_contrast_equals_the_reference():
    voices, faces = embeddings(6, 0), embeddings(6, 1)
    ids = torch.tensor([0, 1, 2, 0, 1, 2])
    same = ids[:, None] == ids
    fast = cross_modal_contrast(voices, faces, same, 0.2)
    plain = (plain_direction(voices, faces, same, 0.2) + plain_direction(faces, voices, same.T, 0.2)) / 2
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12)
    for one, two in zip(
        torch.autograd.grad(fast, [voices, faces]), torch.autograd.grad(plain, [voices, faces]), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


def test_contrast_within_equals_the_reference():
    voices = embeddings(6, 4)
    ids = torch.tensor([0, 1, 2, 0, 1, 2])
    total = voices.new_zeros(())
    for i in range(6):
        every = {j: torch.exp(torch.dot(voices[i], voices[j]) / 0.2) for j in range(6) if j != i}
        total = total - torch.log(sum(every[j] for j in every if ids[j] == ids[i]) / sum(every.values()))
    fast, plain = contrast_within(voices, ids[:, None] == ids, 0.2), total / 6
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12)
    one, two = (torch.autograd.grad(loss, voices)[0] for loss in (fast, plain))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


def test_positives_need_not_be_similar():
    # Two women on different axes and two men on two others have no loss.
    points = torch.eye(4, dtype=torch.float64)
    sex = torch.tensor([0, 0, 1, 1])
    spread = cross_modal_contrast(points, points, sex[:, None] == sex, 0.05)
    assert spread < 1e-8


def test_prototype_contrast_equals_the_reference():
    voices, prototypes = embeddings(4, 2), embeddings(3, 3)
    assignments = torch.tensor([0, 2, 1, 2])
    plain = torch.stack(
        [
            -torch.log_softmax(torch.stack([torch.dot(voice, each) for each in prototypes]) / 0.1, 0)[k]
            for voice, k in zip(voices, assignments.tolist(), strict=True)
        ]
    ).mean()
    torch.testing.assert_close(prototype_contrast(voices, prototypes, assignments, 0.1).mean(), plain)
