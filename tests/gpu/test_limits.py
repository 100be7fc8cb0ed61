"""A device with little memory, and a capacity that follows from the device."""

import logging
from contextlib import contextmanager

import pytest
import torch

from benchmarks.networks import Synthetic
from tests.support.joined_faces import check_close, check_not_trivial, optimise
from tests.support.small_networks import CAPACITY, SMALL
from voicestyle.generators import StyleGAN2Config
from voicestyle.offline import generate_faces
from voicestyle.options import Options

# 140 MiB for the step of a face. The workspaces of cuBLAS take 64 MiB whatever the networks, which hides a smaller one.
LARGER = Synthetic(StyleGAN2Config(size=256, max_width=64), SMALL.encoder, steps=SMALL.steps)


class GpuMemory:
    """The allocator of a GPU: the most bytes that it holds during a call, and a cap on them."""

    def __init__(self, device):
        self.device = device

    def peak(self, function):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        function()
        return torch.cuda.max_memory_reserved(self.device)  # what the cap is about: in use, or kept for later

    @contextmanager
    def capped(self, size):
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(size / total, self.device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)


class CountedImages:
    """In its place on a CPU: the memory is the number of images that the generator makes at once."""

    def __init__(self, engine):
        self._generator, self._most, self._cap = engine.generator, 0, float("inf")
        engine.generator = self

    def __getattr__(self, name):
        return getattr(self._generator, name)

    def __call__(self, latents, noise):
        if len(latents) > self._cap:
            raise torch.OutOfMemoryError(f"{len(latents)} images")
        self._most = max(self._most, len(latents))
        return self._generator(latents, noise)

    def peak(self, function):
        self._most = 0
        function()
        return self._most

    @contextmanager
    def capped(self, size):
        self._cap = size
        try:
            yield
        finally:
            self._cap = float("inf")


def test_steps_go_on_in_smaller_parts_where_memory_is_short(faces, device, caplog):
    running = faces(capacity=8, source=LARGER if device.type == "cuda" else SMALL)
    memory = GpuMemory(device) if device.type == "cuda" else CountedImages(running.engine)
    everyone = {0: [(face, 4) for face in range(8)]}
    few = memory.peak(lambda: optimise(running, {0: [(0, 2)]}))
    expected = {}
    many = memory.peak(lambda: expected.update(optimise(running, everyone)))
    assert many > 1.5 * few, f"eight faces need {many} bytes and one {few}: too little difference for this test"
    caplog.set_level(logging.WARNING, "voicestyle")
    with memory.capped((few + many) / 2):
        outcomes = optimise(running, everyone)
        again = optimise(running, everyone)
    assert "the device has too little memory for a step of 8 faces at once" in caplog.text
    check_not_trivial(outcomes)
    check_close(outcomes, expected, 1e-3, "a step in parts does not compute the same")
    check_close(again, expected, 1e-3, "a step after one that failed does not compute the same")


def test_auto_takes_as_many_requests_as_the_device_is_fast_for(load, device, samples):
    pipeline = load(capacity=None, batched=True)
    computing = pipeline.computing
    assert computing.capacity == pipeline.capacity >= 1
    if device.type == "cuda":
        assert computing.capacity in computing.step_seconds
        assert all(seconds > 0 for seconds in computing.step_seconds.values())
        assert computing.step_seconds[computing.capacity] <= 0.15 or computing.capacity == 1
        assert computing.graphs == "on"
    count = pipeline.capacity + 2
    prepared = [(str(n), pipeline.prepare(samples / "slt.wav", Options(steps=4, seed=n))) for n in range(count)]
    faces = dict(generate_faces(pipeline, prepared))
    assert len({face.image for face in faces.values()}) == count
    assert max(face.largest_batch for face in faces.values()) == pipeline.capacity


@pytest.mark.parametrize("capacity", [1, 3, CAPACITY])
def test_a_capacity_that_is_given_is_kept(load, capacity):
    computing = load(capacity=capacity).computing
    assert computing.capacity == capacity
    assert not computing.step_seconds
