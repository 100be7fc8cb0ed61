from __future__ import annotations

import argparse
import logging
import re

import pytest
import torch

import cmpc2
from cmpc2 import CMPC, CheckpointError, ResNetConfig

TINY = ResNetConfig(widths=(2, 2, 2, 2), depths=(1, 1, 1, 1), embedding_dim=2)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return CMPC(TINY, TINY).state_dict()


@pytest.fixture
def save(tmp_path):
    def save(content: object, **options) -> str:
        path = tmp_path / "cmpc.pth.tar"
        torch.save(content, path, **options)
        return str(path)

    return save


def load(path: str) -> CMPC:
    return cmpc2.load(path, TINY, TINY)


def rejection(path: str) -> str:
    with pytest.raises(CheckpointError, match=re.escape(path)) as caught:
        load(path)
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_load_with_and_without_prefix(save, weights, prefix, zipped):
    state = {prefix + key: value for key, value in weights.items()}
    model = load(save({"model": state, "epoch": 3}, _use_new_zipfile_serialization=zipped))
    assert not model.training
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[key], rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.isfinite(model(torch.zeros(1, 1, 64, 800), torch.zeros(1, 3, 64, 64))[0]).all()


def test_options_and_optimiser_in_the_file_are_ignored(save, weights):
    optimiser = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    options = argparse.Namespace(lr=0.1, data="somewhere")
    load(save({"model": weights, "opt": options, "optimizer": optimiser}))


def test_half_precision_becomes_float32(save, weights):
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    model = load(save({"model": halves}))
    assert model.voice_subnet.conv1.weight.dtype == torch.float32


def test_projection_heads_are_skipped_with_a_warning(save, weights, caplog):
    heads = {
        "projnet.projection.1.weight": torch.zeros(2, 2),
        "voice_subnet_proj.0.conv1.weight": weights["voice_subnet.conv1.weight"],
        "face_subnet_proj.1.projection.1.bias": torch.zeros(2),
    }
    with caplog.at_level(logging.WARNING):
        load(save({"model": {f"module.{key}": value for key, value in (weights | heads).items()}}))
    (record,) = caplog.records
    assert all(key in record.getMessage() for key in heads)


def test_a_checkpoint_without_heads_loads_without_warning(save, weights, caplog):
    load(save({"model": weights}))
    assert not caplog.records


def test_missing_unexpected_and_misshapen_keys_are_listed(save, weights):
    del weights["voice_subnet.layer2.0.bn1.bias"]
    weights["face_subnet.fc.weight"] = torch.zeros(2, 2)
    weights["face_subnet.conv1.weight"] = torch.zeros(2, 1, 7, 7)
    message = rejection(save({"model": weights}))
    assert "missing: voice_subnet.layer2.0.bn1.bias" in message
    assert "unexpected: face_subnet.fc.weight" in message
    assert "wrong shape: face_subnet.conv1.weight [2, 1, 7, 7] instead of [2, 3, 7, 7]" in message


def test_a_prefix_on_only_some_keys_is_rejected(save, weights):
    weights["module.voice_subnet.conv1.weight"] = weights.pop("voice_subnet.conv1.weight")
    message = rejection(save({"model": weights}))
    assert "missing: voice_subnet.conv1.weight" in message
    assert "unexpected: module.voice_subnet.conv1.weight" in message


def test_long_lists_of_keys_are_shortened(save):
    assert re.search(r"missing: (\S+, ){7}\S+ and \d+ more", rejection(save({"model": {}})))


def test_weights_that_are_not_finite_are_listed(save, weights):
    weights["face_subnet.bn1.running_var"][1] = torch.nan
    assert "not finite: face_subnet.bn1.running_var" in rejection(save({"model": weights}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}, "epoch": 1}, "its keys are state_dict, epoch"),
        ({}, "its keys are none"),
        ({"model": torch.zeros(3)}, "its keys are model"),
        ({"model": {"conv1.weight": 3}}, "a tensor with a name; received conv1.weight"),
        ({"model": {7: torch.zeros(3)}}, "a tensor with a name; received 7"),
        ([1, 2], "must contain a dictionary; received list"),
    ],
)
def test_files_of_another_format_are_rejected(save, content, message):
    assert message in rejection(save(content))


class Payload:
    executed = False

    def __reduce__(self):
        return setattr, (Payload, "executed", True)


def test_code_in_a_checkpoint_is_not_executed(save, weights):
    message = rejection(save({"model": weights, "payload": Payload()}))
    assert "weights" in message.lower()
    assert not Payload.executed


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short", b"\x80\x02}q\x00."])
def test_files_that_are_not_checkpoints_are_rejected(tmp_path, content):
    path = tmp_path / "broken.tar"
    path.write_bytes(content)
    assert "\n" not in rejection(str(path))


def test_a_truncated_file_is_rejected(save, weights):
    path = save({"model": weights})
    with open(path, "r+b") as file:  # noqa: PTH123
        file.truncate(5000)
    rejection(path)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        cmpc2.load(tmp_path / "none.tar")
