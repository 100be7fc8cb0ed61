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


def refusal(path: str) -> str:
    with pytest.raises(CheckpointError, match=re.escape(path)) as caught:
        load(path)
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_arrive_with_and_without_prefix(save, weights, prefix, zipped):
    state = {prefix + key: value for key, value in weights.items()}
    model = load(save({"model": state, "epoch": 3}, _use_new_zipfile_serialization=zipped))
    assert not model.training
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[key], rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.isfinite(model(torch.zeros(1, 1, 64, 800), torch.zeros(1, 3, 64, 64))[0]).all()


def test_options_and_optimiser_beside_the_weights_do_no_harm(save, weights):
    optimiser = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    options = argparse.Namespace(lr=0.1, data="somewhere")
    load(save({"model": weights, "opt": options, "optimizer": optimiser}))


def test_half_precision_becomes_float32(save, weights):
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    model = load(save({"model": halves}))
    assert model.voice_subnet.conv1.weight.dtype == torch.float32


def test_training_heads_are_skipped_and_said(save, weights, caplog):
    heads = {
        "projnet.projection.1.weight": torch.zeros(2, 2),
        "voice_subnet_proj.0.conv1.weight": weights["voice_subnet.conv1.weight"],
        "face_subnet_proj.1.projection.1.bias": torch.zeros(2),
    }
    with caplog.at_level(logging.WARNING):
        load(save({"model": {f"module.{key}": value for key, value in (weights | heads).items()}}))
    (record,) = caplog.records
    assert all(key in record.getMessage() for key in heads)


def test_nothing_is_said_of_a_plain_checkpoint(save, weights, caplog):
    load(save({"model": weights}))
    assert not caplog.records


def test_missing_left_over_and_misshapen_keys_are_named(save, weights):
    del weights["voice_subnet.layer2.0.bn1.bias"]
    weights["face_subnet.fc.weight"] = torch.zeros(2, 2)
    weights["face_subnet.conv1.weight"] = torch.zeros(2, 1, 7, 7)
    told = refusal(save({"model": weights}))
    assert "missing: voice_subnet.layer2.0.bn1.bias" in told
    assert "left over: face_subnet.fc.weight" in told
    assert "of another shape: face_subnet.conv1.weight [2, 1, 7, 7] instead of [2, 3, 7, 7]" in told


def test_a_prefix_on_some_keys_only_is_refused(save, weights):
    weights["module.voice_subnet.conv1.weight"] = weights.pop("voice_subnet.conv1.weight")
    told = refusal(save({"model": weights}))
    assert "missing: voice_subnet.conv1.weight" in told
    assert "left over: module.voice_subnet.conv1.weight" in told


def test_long_lists_are_cut(save):
    assert re.search(r"missing: (\S+, ){7}\S+ and \d+ more", refusal(save({"model": {}})))


def test_weights_that_are_not_finite_are_named(save, weights):
    weights["face_subnet.bn1.running_var"][1] = torch.nan
    assert "not finite: face_subnet.bn1.running_var" in refusal(save({"model": weights}))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"state_dict": {}, "epoch": 1}, "its keys are state_dict, epoch"),
        ({}, "its keys are none"),
        ({"model": torch.zeros(3)}, "its keys are model"),
        ({"model": {"conv1.weight": 3}}, "not so conv1.weight"),
        ({"model": {7: torch.zeros(3)}}, "not so 7"),
        ([1, 2], "must hold a dictionary; received list"),
    ],
)
def test_another_form_is_refused(save, content, told):
    assert told in refusal(save(content))


class Trap:
    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def test_code_in_a_checkpoint_is_never_run(save, weights):
    told = refusal(save({"model": weights, "trap": Trap()}))
    assert "weights" in told.lower()
    assert not Trap.sprung


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short", b"\x80\x02}q\x00."])
def test_files_that_are_no_checkpoint(tmp_path, content):
    path = tmp_path / "broken.tar"
    path.write_bytes(content)
    assert "\n" not in refusal(str(path))


def test_a_cut_file_is_refused(save, weights):
    path = save({"model": weights})
    with open(path, "r+b") as file:  # noqa: PTH123
        file.truncate(5000)
    refusal(path)


def test_a_path_that_cannot_be_opened_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        cmpc2.load(tmp_path / "none.tar")
