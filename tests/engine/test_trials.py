"""Trial steps with recorded clocks and memory, and the meter of a GPU against a recorded torch.cuda."""

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch

from tests.support.recorded_meter import RecordedMeter
from tests.support.tiny_engine import engine, item
from voicestyle.engine import trials
from voicestyle.engine.trials import TIMED_STEPS, UNTIMED_STEPS, CudaMeter, measure_capacity, meter_of

SECONDS = {1: 0.01, 2: 0.012, 4: 0.02, 8: 0.2}
MEMORY = {size: 100 + 1000 * size for size in SECONDS}


class Engines:
    """Makes full engines, and remembers weakly those that it made."""

    def __init__(self, meter, fails_at=None, error=None):
        self.meter, self.fails_at, self.error = meter, fails_at, error
        self.made, self.begun = [], []

    def __call__(self, size):
        assert not self.alive, "the engine of the size before was not freed"
        self.begun.append(self.meter.begun)
        running = engine(capacity=size, batched=True)
        running.cycle = running  # as of an engine and its graphs
        self.made.append((size, weakref.ref(running)))
        for number in range(size):
            running.add(number, **item(number, steps=40))
        self.meter.size = size
        if size == self.fails_at:
            raise self.error
        return running

    @property
    def alive(self):
        gc.collect()
        return [size for size, running in self.made if running() is not None]

    @property
    def sizes(self):
        return [size for size, _ in self.made]


@pytest.fixture
def meter():
    return RecordedMeter(SECONDS, MEMORY, free=10_000)


def test_the_capacity_follows_from_the_measured_steps(meter):
    engines = Engines(meter)
    choice = measure_capacity(engines, lambda: None, meter, 0.15)
    assert (choice.capacity, engines.sizes) == (4, [1, 2, 4, 8])
    assert choice.step_seconds == pytest.approx(SECONDS)
    assert not engines.alive
    first = engines.begun[0]
    assert [*engines.begun, meter.begun] == list(range(first, first + 5)), "memory is freed before and after each trial"


def test_the_first_steps_are_not_timed_and_few_slow_ones_change_nothing(meter):
    meter.slow_steps = {*range(UNTIMED_STEPS), UNTIMED_STEPS + 1, UNTIMED_STEPS + 3, UNTIMED_STEPS + 5}
    choice = measure_capacity(Engines(meter), lambda: None, meter, 0.15)
    assert choice.step_seconds == pytest.approx(SECONDS)
    meter.slow_steps = set(range(UNTIMED_STEPS + TIMED_STEPS))
    assert measure_capacity(Engines(meter), lambda: None, meter, 0.15).step_seconds[1] > 1


def test_the_largest_request_keeps_its_memory(meter):
    """Its second run counts: the first one loads libraries, whose memory is then gone from the free one."""
    calls = []

    def largest_request():
        calls.append(meter.begun)
        meter.taken = 5000 if len(calls) == 2 else 0

    assert measure_capacity(Engines(meter), largest_request, meter, 0.15).capacity == 2  # 4 need 4100 of 9000
    assert calls == [0, 1]


def test_an_out_of_memory_error_ends_the_trials(meter):
    engines = Engines(meter, fails_at=4, error=torch.OutOfMemoryError("CUDA out of memory"))
    choice = measure_capacity(engines, lambda: None, meter, 0.15)
    assert (choice.capacity, engines.sizes) == (2, [1, 2, 4])
    engines.error = None
    assert not engines.alive


def test_another_error_of_a_trial_is_raised(meter):
    engines = Engines(meter, fails_at=2, error=RuntimeError("the capture failed"))
    with pytest.raises(RuntimeError, match="the capture failed"):
        measure_capacity(engines, lambda: None, meter, 0.15)


def test_no_item_ends_in_a_trial_of_few_steps():
    """An item of a bundle that allows three steps."""
    meter = RecordedMeter({1: 0.01, 2: 0.2}, MEMORY, free=10_000)

    def full_engine(size):
        running = engine(capacity=size, batched=True)
        running.max_steps = 3
        for number in range(size):
            running.add(number, **item(number, steps=3))
        meter.size = size
        return running

    choice = measure_capacity(full_engine, lambda: None, meter, 0.15)
    assert (choice.capacity, choice.step_seconds) == (1, pytest.approx({1: 0.01, 2: 0.2}))


class RecordedCuda:
    """Memory of torch.cuda as plain numbers, and the calls in order."""

    def __init__(self):
        self.calls = []
        self.free, self.reserved, self.max_reserved = 1000, 0, 0

    def __getattr__(self, name):
        def record(*arguments):
            self.calls.append((name, *arguments))
            return {
                "mem_get_info": (self.free, 5000),
                "memory_reserved": self.reserved,
                "max_memory_reserved": self.max_reserved,
            }.get(name)

        return record


@pytest.fixture
def cuda(monkeypatch):
    recorded = RecordedCuda()
    monkeypatch.setattr(trials, "torch", SimpleNamespace(cuda=recorded, device=torch.device))
    return recorded


def test_the_meter_of_a_gpu_watches_its_own_device(cuda):
    device = torch.device("cuda:1")
    meter = CudaMeter(device)
    meter.begin()
    meter.seconds()
    meter.peak()
    named = [call for call in cuda.calls if call != ("empty_cache",)]
    assert named
    assert all(call[1:] == (device,) for call in named)


def test_the_peak_counts_what_was_given_back_and_what_pytorch_does_not_know(cuda):
    meter = CudaMeter(torch.device("cuda:0"))
    meter.begin()
    assert [name for name, *_ in cuda.calls] == ["empty_cache", "reset_peak_memory_stats", "mem_get_info"]
    # 500 bytes of tensors at the peak, 200 of which were given back, and 40 of libraries and graphs.
    cuda.max_reserved, cuda.reserved, cuda.free = 500, 300, 1000 - 300 - 40
    assert meter.peak() == 540


def test_the_clock_of_a_gpu_waits_for_its_work(cuda, monkeypatch):
    monkeypatch.setattr(trials, "perf_counter", lambda: cuda.calls.append(("perf_counter",)) or 7.0)
    assert CudaMeter(torch.device("cuda:0")).seconds() == 7.0
    assert [name for name, *_ in cuda.calls] == ["synchronize", "perf_counter"]


def test_nothing_is_measured_on_a_cpu(cuda):
    assert meter_of(torch.device("cpu")) is None
    assert isinstance(meter_of(torch.device("cuda:0")), CudaMeter)
