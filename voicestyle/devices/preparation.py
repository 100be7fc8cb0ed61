"""Settings of torch for a device, before anything else uses it."""

import os

import torch


def prepare_device(device: torch.device | str) -> None:
    """Make a GPU the current device; on a CPU, use all cores of this process unless the environment says how many."""
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
