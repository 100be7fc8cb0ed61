"""Two gloo processes give the losses, weights and memory banks of a single process with the same batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.train_two_ranks import make_trainer
from voicestyle.training.distributed import GlobalBatchNorm2d, Ranks, process_group
from voicestyle.training.errors import TrainingError

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_two_processes_equal_one(videos_folder, tmp_path):
    folder = videos_folder()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.support.train_two_ranks", str(folder), str(tmp_path)]
    running = [
        subprocess.Popen(command, cwd=ROOT, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    ]
    losses = []
    trainer = make_trainer(folder, Ranks())
    trainer.run(lambda epoch, mean: losses.append(mean))
    assert [each.wait(timeout=120) for each in running] == [0, 0]
    first, second = (json.loads((tmp_path / f"losses_{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert len(losses) == 5
    assert "prototype" in losses[-1]
    for one, two in zip(losses, first, strict=True):
        assert two == pytest.approx(one, rel=1e-9)
    states = [torch.load(tmp_path / f"state_{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, value in trainer.model.state_dict().items():
        # Sums over processes come in the same order everywhere, so the processes are equal to the bit.
        assert torch.equal(states[0]["model"][name], states[1]["model"][name]), name
        torch.testing.assert_close(states[0]["model"][name], value, rtol=1e-6, atol=1e-8)
    for name, bank in trainer.objective.memory.features.items():
        assert torch.equal(states[0]["objective"]["memory"][name], states[1]["objective"]["memory"][name])
        torch.testing.assert_close(states[0]["objective"]["memory"][name], bank, rtol=0, atol=1e-5)


def test_global_batch_norm_of_one_process_is_batch_norm(monkeypatch):
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda _: None)
    torch.manual_seed(0)
    plain, ours = (nn.BatchNorm2d(3).double() for _ in range(2))
    for norm in (plain, ours):
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(1))
    ours.__class__ = GlobalBatchNorm2d
    for _ in range(2):
        x = torch.randn(4, 3, 5, 6, dtype=torch.float64, requires_grad=True)
        one, two = plain(x), ours(x)
        torch.testing.assert_close(two, one)
        weights = torch.randn(one.shape, dtype=torch.float64)
        gradients = [
            torch.autograd.grad((y * weights).sum(), [x, norm.weight, norm.bias])
            for y, norm in ((one, plain), (two, ours))
        ]
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(b, a)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))


def test_parts_cover_the_batch():
    parts = [list(range(12))[Ranks(rank, 3).part(12)] for rank in range(3)]
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(TrainingError, match="multiple of the 3 processes, received 10"):
        Ranks(0, 3).part(10)


def test_without_torchrun_one_process_trains(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group("cpu") as ranks:
        assert ranks == Ranks()
        assert ranks.from_first({"a": 1}) == {"a": 1}
        model = nn.Linear(2, 2)
        assert ranks.wrap(model) is model
