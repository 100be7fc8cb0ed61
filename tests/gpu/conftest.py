"""What a GPU computes. Each test runs on the CPU too, with calls in place of graphs, so that its own mistakes are found
where there is no GPU."""

import gc

import pytest
import torch

from benchmarks.variants import Faces, Variant
from tests.support.small_networks import CAPACITY, SMALL, call_in_place_of_graph, small_parts
from voicestyle.bundle import write_bundle
from voicestyle.devices import prepare_device
from voicestyle.engine import CudaCapture
from voicestyle.pipeline import Pipeline

NUMBERS = range(8)  # of faces


@pytest.fixture(params=[pytest.param("cpu", marks=pytest.mark.long), pytest.param("cuda:0", marks=pytest.mark.gpu)])
def device(request):
    device = torch.device(request.param)
    if device.type == "cuda":
        prepare_device(device)  # as the worker does
    yield device
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


@pytest.fixture
def faces(device):
    """`faces(graphs, dtype)`: an engine of compiled networks, and faces 0 … 7 that can join it."""

    def start(graphs=False, dtype="float32", wrap=lambda replay: replay, capacity=CAPACITY, source=SMALL):
        variant = Variant({}, dtype=dtype, compiled=True, batched=True, graphs=graphs)
        capture = call_in_place_of_graph if device.type == "cpu" else CudaCapture(device)
        return Faces(variant, source, NUMBERS, capacity, device, lambda run: wrap(capture(run)))

    return start


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "small"
    write_bundle(folder, **small_parts())
    return folder


@pytest.fixture
def load(small_bundle, device):
    """`load(**options)`: the small bundle as a pipeline on the device."""

    def start(**options):
        return Pipeline.load(small_bundle, device=device, **{"capacity": CAPACITY} | options)

    return start
