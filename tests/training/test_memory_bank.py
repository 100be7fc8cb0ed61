"""Memory banks."""

import torch
from torch.nn import functional as F

from voicestyle.training.memory_bank import MemoryBank


def test_rows_are_moving_averages_of_unit_vectors():
    bank = MemoryBank(4, 2, momentum=0.75)
    rows = torch.tensor([2, 0])
    bank.update(rows, torch.tensor([[3.0, 0], [0, 1]]), torch.tensor([[0.0, 1], [0, 1]]))
    assert bank.voice.tolist() == [[0, 1], [0, 0], [1, 0], [0, 0]]
    bank.update(rows[:1], torch.tensor([[0.0, 2]]), torch.tensor([[0.0, 1]]))
    expected = F.normalize(torch.tensor([0.75, 0.25]), dim=0)
    torch.testing.assert_close(bank.voice[2], expected)
    assert bank.face[2].tolist() == [0, 1]


def test_banks_know_when_every_item_was_seen():
    bank = MemoryBank(2, 2, 0.5)
    for row in (0, 1):
        assert not bank.all_seen()
        bank.update(torch.tensor([row]), torch.ones(1, 2), torch.ones(1, 2))
    assert bank.all_seen()


def test_updates_have_no_gradient():
    bank = MemoryBank(2, 2, 0.5)
    bank.update(torch.tensor([0]), torch.ones(1, 2, requires_grad=True), torch.ones(1, 2, dtype=torch.float64))
    assert not bank.voice.requires_grad
    assert bank.face.dtype == torch.float32


def test_a_restored_bank_is_the_same():
    bank, other = MemoryBank(2, 2, 0.5), MemoryBank(2, 2, 0.5)
    bank.update(torch.tensor([1]), torch.ones(1, 2), torch.eye(2)[:1])
    other.restore(bank.state())
    assert torch.equal(bank.voice, other.voice)
    assert torch.equal(bank.face, other.face)
