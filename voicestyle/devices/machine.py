"""What CUDA finds on this machine: by torch, by NVIDIA's driver and by nvidia-smi."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from typing import Final, NamedTuple

import torch
from torch.cuda import DeferredCudaCallError

SMI: Final = "nvidia-smi"
SMI_SECONDS: Final = 20.0  # it takes seconds where the driver is not kept loaded; with a lost GPU it may hang
# The oldest driver of each major version of CUDA, by NVIDIA's CUDA toolkit release notes (minor version compatibility).
OLDEST_DRIVER: Final = {11: 450, 12: 525, 13: 580}
DRIVER: Final = re.compile(r"\b\d{3,}\.\d+(?:\.\d+)?\b")  # 535.104.05


class Gpus(NamedTuple):
    """How many GPUs torch can use, and if it can use none, its reason."""

    usable: int
    reason: str | None = None


class NvidiaSmi(NamedTuple):
    """nvidia-smi's answer: GPU names and the driver's version, or why there is none."""

    names: tuple[str, ...] = ()
    driver: str | None = None
    error: str | None = None

    def __str__(self) -> str:
        return f"lists {', '.join(self.names) or 'no GPU'}" if self.error is None else self.error


@dataclass(frozen=True)
class Machine:
    """The machine of this process. The folders `dev` and `proc` and `environment` are its own unless a test says."""

    dev: Path = Path("/dev")
    proc: Path = Path("/proc")
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def cuda_build(self) -> str | None:
        """The version of CUDA that this torch was built for; None for a CPU build."""
        return torch.version.cuda

    def gpus(self) -> Gpus:
        """The GPUs that torch can use. Makes no CUDA context."""
        if torch.cuda.is_available():
            return Gpus(torch.cuda.device_count())
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError, DeferredCudaCallError) as error:  # AssertionError: a CPU build
            return Gpus(0, first_sentence(error))
        return Gpus(0)

    def nvidia_smi(self) -> NvidiaSmi:
        """Ask nvidia-smi."""
        found = which(SMI, path=self.environment.get("PATH"))
        if found is None:
            return NvidiaSmi(error="not found")
        command = [found, "--query-gpu=name,driver_version", "--format=csv,noheader"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=SMI_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return NvidiaSmi(error=f"gave no answer in {SMI_SECONDS:.0f} s")
        except OSError as error:
            return NvidiaSmi(error=f"could not be run: {error.strerror}")
        if done.returncode != 0:
            said = first_sentence(done.stdout.strip() or done.stderr.strip() or "nothing")
            return NvidiaSmi(error=f"ended with status {done.returncode} and said {said!r}")
        rows = [line.rpartition(",") for line in done.stdout.splitlines() if "," in line]
        return NvidiaSmi(tuple(name.strip() for name, _, _ in rows), rows[0][2].strip() if rows else None)

    def driver(self, smi: NvidiaSmi) -> str | None:
        """The version of NVIDIA's driver, by the kernel or else by nvidia-smi; None without one."""
        try:
            text = (self.proc / "driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return smi.driver
        found = DRIVER.search(text)
        return found[0] if found else smi.driver

    def traces(self) -> list[str]:
        """What suggests an NVIDIA GPU or driver, whether torch can use it or not."""
        nodes = sorted(path.name for path in self.dev.glob("nvidia*"))
        found = [str(self.dev / nodes[0])] if nodes else []
        if (version := self.proc / "driver/nvidia/version").exists():
            found.append(str(version))
        if which(SMI, path=self.environment.get("PATH")):
            found.append(SMI)
        return found

    def findings(self, reason: str | None) -> str:
        """What was found and what to do, in one line. reason: why torch can use no GPU, or not the one asked for."""
        smi = self.nvidia_smi()
        driver = self.driver(smi)
        build = f"is built for CUDA {self.cuda_build}" if self.cuda_build else "is a CPU build"
        found = [f"torch {torch.__version__} {build}" + (f" and says {reason!r}" if reason and self.cuda_build else "")]
        found += [f"NVIDIA driver: {driver or 'none'}", f"{SMI}: {smi}"]
        if (visible := self.environment.get("CUDA_VISIBLE_DEVICES")) is not None:
            found.append(f"CUDA_VISIBLE_DEVICES: {visible!r}")
        return "; ".join([*found, *self._remedy(driver)])

    def _remedy(self, driver: str | None) -> list[str]:
        if self.cuda_build is None:
            return ["install a CUDA build of torch, which the target gpu of the image has"]
        oldest = OLDEST_DRIVER.get(int(self.cuda_build.partition(".")[0]))
        needed = f"this build needs driver {oldest} or newer" if oldest else "this build needs a driver for its CUDA"
        if driver is None:
            return [f"{needed}, made visible here by NVIDIA's container runtime (docker run --gpus all)"]
        if oldest and int(driver.partition(".")[0]) < oldest:
            return [f"{needed}, or use an image with torch from the index of an older CUDA"]
        return []


def first_sentence(error: object) -> str:
    """The first sentence of a message's first line; after it, torch gives general advice."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.split(r"\. (?=[A-Z])", lines[0].strip())[0]
