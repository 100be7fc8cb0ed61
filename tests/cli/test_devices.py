"""The option --device on machines with other GPUs than this one."""

import click
import pytest

from tests.support.fake_gpus import FakeMachine
from voicestyle.cli import devices
from voicestyle.devices import DeviceError, choice


@pytest.fixture
def prepared(monkeypatch):
    """The devices that were prepared, on a machine with two GPUs."""
    calls = []
    monkeypatch.setattr(choice, "Machine", lambda: FakeMachine(count=2, environment={"PATH": ""}))
    monkeypatch.setattr(devices, "prepare_device", calls.append)
    return calls


@pytest.mark.parametrize(("name", "expected"), [("cpu", []), ("cuda", ["cuda"]), ("cuda:1", ["cuda:1"])])
def test_a_gpu_that_makes_faces_is_prepared_and_a_cpu_keeps_its_threads(prepared, name, expected):
    assert devices.prepared_device(name) == name
    assert prepared == expected


def test_other_commands_only_check_the_device(prepared):
    assert devices.usable_device("cuda:1") == "cuda:1"
    assert not prepared


def test_a_number_beyond_this_machine_is_an_error_but_not_for_another_machine(prepared):
    for check in (devices.usable_device, devices.prepared_device):
        with pytest.raises(click.BadParameter, match="^GPU 2 was asked for, but torch can use only 2"):
            check("cuda:2")
    assert devices.usable_device("cuda:2", here=False) == "cuda:2"
    assert not prepared


def test_a_gpu_that_cannot_compute_is_a_wrong_value(prepared, monkeypatch):
    def fail(_):
        raise DeviceError("cuda must be able to compute")

    monkeypatch.setattr(devices, "prepare_device", fail)
    with pytest.raises(click.BadParameter, match="^cuda must be able to compute$"):
        devices.prepared_device("cuda")
