"""`voicestyle serve` checks the device that is asked for before it starts java."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from tests.support.fake_gpus import with_model_config
from voicestyle.errors import ServerError
from voicestyle.serving import Ports, TorchServe
from voicestyle.serving.device_check import check_device, configured_device

ROOT = Path(__file__).parents[2]
NONE_CAN_BE_USED = "a CUDA device was asked for, but torch can use none: torch "


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("VOICESTYLE_DEVICE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def check_of(code):
    return (sys.executable, "-c", code)


FAILS = check_of("print('a library says hello'); print('torch can use none'); raise SystemExit(2)")


@pytest.mark.parametrize(
    ("variable", "section", "checked"),
    [
        (None, "auto", False),
        (None, "cpu", False),
        (None, "cuda", True),
        ("cuda", "auto", True),
        ("cpu", "cuda", False),
        ("auto", "cuda", False),
    ],
)
def test_only_cuda_is_checked_and_the_variable_comes_first(
    tiny_archive, tmp_path, monkeypatch, variable, section, checked
):
    archive = with_model_config(tiny_archive, tmp_path / "voicestyle.mar", handler={"device": section})
    assert configured_device(archive) == section
    if variable:
        monkeypatch.setenv("VOICESTYLE_DEVICE", variable)
    if checked:
        with pytest.raises(ServerError, match="^torch can use none$"):
            check_device(archive, FAILS)
    else:
        check_device(archive, FAILS)


def test_a_device_that_can_be_used_is_no_error(tiny_archive, monkeypatch):
    monkeypatch.setenv("VOICESTYLE_DEVICE", "cuda")
    check_device(tiny_archive, check_of(""))


@pytest.mark.parametrize(
    ("code", "seconds", "message"),
    [
        ("import os; os.abort()", 60, "^the check of the CUDA device ended with status -6: $"),
        ("raise ImportError('libcudart')", 60, "^the check of the CUDA device ended with status 1: .*libcudart$"),
        ("import time; time.sleep(60)", 0.2, "^a CUDA device was asked for, but torch could not use one within 0 s$"),
    ],
)
def test_a_check_that_dies_or_hangs_is_an_error(tiny_archive, monkeypatch, code, seconds, message):
    monkeypatch.setenv("VOICESTYLE_DEVICE", "cuda")
    with pytest.raises(ServerError, match=message):
        check_device(tiny_archive, check_of(code), seconds)


def test_invalid_values_are_errors(tiny_archive, tmp_path, monkeypatch):
    archive = with_model_config(tiny_archive, tmp_path / "voicestyle.mar", handler={"device": "tpu"})
    with pytest.raises(ServerError, match="^device must be one of auto, cpu, cuda, got 'tpu'$"):
        check_device(archive)
    monkeypatch.setenv("VOICESTYLE_DEVICE", "gpu")
    with pytest.raises(ServerError, match="^VOICESTYLE_DEVICE must be one of auto, cpu, cuda, got 'gpu'$"):
        check_device(archive)


@pytest.mark.parametrize(
    ("visible", "readable"), [("", True), ("0", True), ("2,3", True), ("-1", True), ("0, 1", False), ("MIG-4", False)]
)
def test_torchserve_must_be_able_to_read_cuda_visible_devices(tiny_archive, monkeypatch, visible, readable):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if readable:
        check_device(tiny_archive)
    else:
        with pytest.raises(ServerError, match=f"^CUDA_VISIBLE_DEVICES must be numbers .*, got '{visible}'$"):
            check_device(tiny_archive)


def test_a_file_that_is_no_archive_is_an_error(tmp_path):
    archive = tmp_path / "voicestyle.mar"
    archive.write_bytes(b"no zip")
    with pytest.raises(ServerError, match="must be an archive that `voicestyle archive` wrote"):
        configured_device(archive)
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("MAR-INF/MANIFEST.json", "{}")
    with pytest.raises(ServerError, match="must be an archive that `voicestyle archive` wrote"):
        configured_device(archive)


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_serve_refuses_to_start_in_one_line_with_exit_code_2(tiny_archive, tmp_path, monkeypatch):
    monkeypatch.setenv("VOICESTYLE_DEVICE", "cuda")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "no java"))
    numbers = zip(
        ("--port", "--grpc-port", "--operations-port", "--management-port", "--grpc-management-port", "--metrics-port"),
        vars(Ports.free()).values(),
        strict=True,
    )
    command = [sys.executable, "-m", "voicestyle.cli", "serve", "--archive", str(tiny_archive)]
    command += [str(each) for pair in numbers for each in pair]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"voicestyle: {NONE_CAN_BE_USED}")
    assert "NVIDIA driver: " in line
    assert "nvidia-smi: " in line
    assert not list(tmp_path.iterdir())  # TorchServe was not even started: it would have a folder


@pytest.mark.serving
@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_worker_refuses_too_for_a_torchserve_that_was_not_checked(tiny_archive, monkeypatch):
    monkeypatch.setenv("VOICESTYLE_DEVICE", "cuda")
    with pytest.raises(ServerError) as caught, TorchServe(tiny_archive):
        pass
    assert f"DeviceError: {NONE_CAN_BE_USED}" in str(caught.value)
