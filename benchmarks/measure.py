"""Measurements of one variant, each meant for a process of its own (`benchmarks.results.run_process`)."""

import os
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.networks import NETWORKS, Networks
from benchmarks.published_loop import Step
from benchmarks.results import machine
from benchmarks.variants import VARIANTS
from voicestyle.devices import prepare_device
from voicestyle.engine import encoder_input
from voicestyle.images import to_pixels

MATRIX_SIZE = 2048
CUDA_MATRIX_SIZE = 8192  # a GPU multiplies the smaller ones in the time that a launch takes
MATRIX_RUNS = 8
MATRIX_DTYPES = (torch.float32, torch.bfloat16)


def time(networks: str, variant: str, batch: int, warm_up: int, steps: int, device: str) -> dict[str, Any]:
    """Seconds a step after `warm_up` steps, peak memory, and the rate of large matrix products directly afterwards."""
    where = _prepared(device)
    here = machine(device)
    run = VARIANTS[variant].start(NETWORKS[networks], range(batch), where)
    for _ in range(warm_up):
        run.step()
    began = now(where)
    for _ in range(steps):
        run.step()
    return {
        "machine": here,
        "dtype": VARIANTS[variant].dtype_on(where),
        "steps": steps,
        "seconds": (now(where) - began) / steps,
        "peak_resident_mib": peak_resident_mib(),
        "peak_cuda_mib": torch.cuda.max_memory_allocated(where) / 2**20 if where.type == "cuda" else None,
        "matmul_gflops": {str(dtype).split(".")[1]: matmul_gflops(where, dtype) for dtype in MATRIX_DTYPES},
    }


def quality(networks: str, variant: str, face: int, image: str, device: str) -> dict[str, float]:
    """Take all steps of a face, write its pixels to the file `image` (.npy), and return its similarity."""
    run = VARIANTS[variant].start(NETWORKS[networks], range(face, face + 1), _prepared(device))
    for _ in range(NETWORKS[networks].steps):
        run.step()
    similarity, pixels = judge(NETWORKS[networks].load(), run.state(face), face)
    np.save(image, pixels)
    return {"similarity": similarity}


def _prepared(device: str) -> torch.device:
    """The device, with all cores, and a GPU with the settings of the worker."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    where = torch.device(device)
    if where.type == "cuda":
        prepare_device(where)
    return where


@torch.no_grad()
def judge(networks: Networks, state: Step, face: int) -> tuple[float, np.ndarray]:
    """cos(voice, image) of a face as the float32 networks see it, and its pixels [S, S, 3] uint8.

    A variant of lower precision must not judge itself.
    """
    image = networks.generator(state.latent.cpu(), [level.cpu() for level in state.noise])
    seen = encoder_input(image, networks.image_size, networks.image_size)
    voice = networks.voice_encoder(networks.voice(face))
    return F.cosine_similarity(voice, networks.face_encoder(seen)).item(), to_pixels(image[0])


def matmul_gflops(device: torch.device, dtype: torch.dtype) -> float:
    """10⁹ operations a second in a product of two 2048² matrices, on a GPU 8192², the best of several runs."""
    size = CUDA_MATRIX_SIZE if device.type == "cuda" else MATRIX_SIZE
    a, b = (torch.randn(size, size).to(device, dtype) for _ in range(2))
    seconds: list[float] = []
    for _ in range(MATRIX_RUNS):
        began = now(device)
        torch.mm(a, b)
        seconds.append(now(device) - began)
    return 2 * size**3 / min(seconds) / 1e9


def now(device: torch.device) -> float:
    """Seconds of a clock, read when the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


def peak_resident_mib() -> float:
    """This process's peak resident memory. Not `ru_maxrss`, which starts at the parent process's."""
    return _status_mib("VmHWM:")


def memory_mib(device: torch.device) -> float:
    """The memory that is used now: of tensors on a GPU, otherwise resident."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.memory_allocated(device) / 2**20
    return _status_mib("VmRSS:")


def _status_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))
