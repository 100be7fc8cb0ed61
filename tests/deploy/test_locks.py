"""requirements.lock and requirements-cuda.lock: they agree, and the second one pins what torch's CUDA build needs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.sources import ROOT

CPU, CUDA = ROOT / "requirements.lock", ROOT / "requirements-cuda.lock"
UV = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
# The requirements for Linux in the metadata of PyPI's torch 2.13.0, and those of the parts of cuda-toolkit 13.0.3 that
# it names. The CPU build, which tests run with, has none of them.
TORCH = "2.13.0"
NEEDS = """
cuda-toolkit==13.0.3
cuda-bindings<14,>=13.0.3
nvidia-cudnn-cu13==9.20.0.48
nvidia-cusparselt-cu13==0.8.1
nvidia-nccl-cu13==2.29.7
nvidia-nvshmem-cu13==3.4.5
triton==3.7.1
nvidia-cublas==13.1.1.3.*
nvidia-cuda-cupti==13.0.85.*
nvidia-cuda-nvrtc==13.0.88.*
nvidia-cuda-runtime==13.0.96.*
nvidia-cufft==12.0.0.61.*
nvidia-cufile==1.15.1.6.*
nvidia-curand==10.4.0.35.*
nvidia-cusolver==12.0.4.66.*
nvidia-cusparse==12.6.3.3.*
nvidia-nvjitlink<14,>=13.0.88
nvidia-nvtx==13.0.85.*
"""


def pins(path):
    """The exact versions by name; every line that is not a comment must be one."""
    lines = [line.partition(" #")[0].strip() for line in path.read_text().splitlines() if line.strip()]
    matches = [re.fullmatch(r"([a-z0-9-]+)==([0-9a-z.]+)", line) for line in lines if not line.startswith("#") and line]
    assert all(matches), f"{path.name}: not NAME==VERSION"
    return {match[1]: match[2] for match in matches}


@pytest.mark.parametrize("path", [CPU, CUDA], ids=lambda path: path.name)
def test_locks_name_versions_but_no_build_no_host_and_no_path(path):
    assert pins(path)["torch"] == TORCH
    assert not re.search(r"\+[a-z]|://|@|(^|\s)(/|--)", re.sub(r"(?m)^# .*", "", path.read_text()))


def test_the_locks_agree_and_the_second_adds_only_what_torch_s_cuda_build_needs():
    cpu, cuda = pins(CPU), pins(CUDA)
    assert {name: cuda.get(name) for name in cpu} == cpu
    added = set(cuda) - set(cpu) - {"setuptools"}  # which pip-compile never pins
    assert all(re.match(r"(cuda|nvidia|triton)\b", name) for name in added)


def test_all_that_torch_s_cuda_build_needs_is_pinned():
    cuda = pins(CUDA)
    for need in map(Requirement, NEEDS.split()):
        assert need.name in cuda, f"{need.name} is not pinned"
        assert need.specifier.contains(cuda[need.name]), f"torch {TORCH} needs {need}, got {cuda[need.name]}"


@pytest.mark.slow
@pytest.mark.skipif(UV is None, reason="needs uv, which make lock installs, and a package index")
def test_the_gpu_target_s_install_resolves_from_its_lock(tmp_path):
    """A dry run by metadata; pip's own --dry-run downloads the wheels, 2.7 GB of them."""
    command = [UV, "pip", "install", "--no-config", "--dry-run", "--target", tmp_path, "--python", sys.executable]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--constraint", CUDA]
    command += ["--requirement", ROOT / "pyproject.toml", "--extra", "serve"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"(?m)^ \+ (\S+)==(\S+)$", done.stderr))
    assert found.items() <= pins(CUDA).items()
    assert {Requirement(need).name for need in NEEDS.split()} <= found.keys()
