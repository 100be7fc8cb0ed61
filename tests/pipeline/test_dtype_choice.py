"""`dtype: auto` is what the hardware does faster. Scripted clocks and kernels stand for machines."""

import logging
import os
import platform
import subprocess
import sys
from itertools import count

import pytest
import torch

from voicestyle import precision
from voicestyle.precision import bfloat16_speedup, choose_dtype

CPU = torch.device("cpu")


class Machine:
    """Kernels that move its clock. seconds: of each kernel in float32 and in bfloat16."""

    def __init__(self, *seconds, cold=0.0, busy=lambda call: 1.0):
        self.seconds = seconds
        self.cold = cold
        self.busy = busy
        self.now = 0.0
        self.calls = []

    def clock(self):
        return self.now

    def kernels(self, device, dtype):
        column = [torch.float32, torch.bfloat16].index(dtype)
        return [lambda pair=pair: self._run(pair, column) for pair in self.seconds]

    def _run(self, pair, column):
        first = (pair, column) not in self.calls
        self.now += pair[column] * self.busy(len(self.calls)) + (self.cold if first else 0.0)
        self.calls.append((pair, column))

    @property
    def speedup(self):
        return bfloat16_speedup(CPU, self.kernels, self.clock)


@pytest.mark.parametrize(
    ("speedup", "expected"),
    [(2.0, torch.bfloat16), (1.3, torch.bfloat16), (1.29, torch.float32), (0.5, torch.float32), (0, torch.float32)],
)
def test_auto_is_bfloat16_where_it_is_clearly_faster(speedup, expected):
    assert choose_dtype("auto", "cpu", lambda device: speedup) is expected


@pytest.mark.parametrize("choice", ["float32", "bfloat16"])
def test_an_explicit_dtype_measures_nothing(choice):
    assert choose_dtype(choice, "cuda:7", lambda device: pytest.fail("measured")) is getattr(torch, choice)


def test_each_device_is_measured_for_itself():
    speedup = {torch.device("cuda:0"): 0.9, torch.device("cuda:1"): 9.0}
    found = [choose_dtype("auto", device, speedup.__getitem__) for device in ("cuda:0", "cuda:1")]
    assert found == [torch.float32, torch.bfloat16]


def test_an_unknown_dtype_is_named():
    with pytest.raises(ValueError, match="one of auto, float32, bfloat16, got 'half'"):
        choose_dtype("half", "cpu")


def test_the_kernel_that_gains_least_decides():
    assert Machine((4.0, 2.0), (3.0, 6.0)).speedup == pytest.approx(0.5)
    assert Machine((4.0, 2.0), (6.0, 2.0)).speedup == pytest.approx(2.0)


def test_compilation_in_the_first_call_does_not_count():
    assert Machine((0.004, 0.002), cold=3.0).speedup == pytest.approx(2.0)


def test_other_load_on_the_machine_does_not_count():
    machine = Machine((0.004, 0.002), busy=lambda call: 10.0 if call % 3 else 1.0)
    assert machine.speedup == pytest.approx(2.0)


def test_slow_emulation_is_run_twice_only():
    machine = Machine((0.001, 0.5))
    assert machine.speedup == pytest.approx(0.002)
    assert len(machine.calls) == 4
    fast = Machine((0.001, 0.0005))
    assert fast.speedup == pytest.approx(2)
    assert len(fast.calls) == 2 * (1 + precision.ROUNDS)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RuntimeError("no kernel for BFloat16\nmore"), None),
        (NotImplementedError("not implemented for 'BFloat16'"), None),
        (torch.OutOfMemoryError("out of memory"), torch.OutOfMemoryError),
        (torch.AcceleratorError("unspecified launch failure", 719), torch.AcceleratorError),
    ],
)
def test_a_device_without_bfloat16_computes_in_float32_and_a_broken_one_fails(error, raised, caplog):
    def kernels(device, dtype):
        def run():
            if dtype is torch.bfloat16:
                raise error

        return [run]

    caplog.set_level(logging.INFO, "voicestyle")
    clock = count().__next__
    if raised:
        with pytest.raises(raised):
            bfloat16_speedup(CPU, kernels, clock)
    else:
        assert bfloat16_speedup(CPU, kernels, clock) == 0
        assert "bfloat16 is not available on cpu: no" in caplog.text
        assert "more" not in caplog.text


def test_a_device_is_measured_and_logged_once(monkeypatch, caplog):
    measured = []
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda device: measured.append(device) or 2.4)
    precision._speedup_here.cache_clear()
    caplog.set_level(logging.INFO, "voicestyle")
    try:
        assert [choose_dtype("auto", device) for device in ("cpu", CPU, "cpu")] == [torch.bfloat16] * 3
    finally:
        precision._speedup_here.cache_clear()
    assert measured == [CPU]
    assert caplog.messages == ["bfloat16 is 2.4 times as fast as float32 here"]


def test_measuring_changes_neither_random_state_nor_threads():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    seen = []

    def kernels(device, dtype):
        seen.append(torch.get_num_threads())
        return precision.network_kernels(device, dtype)

    torch.set_num_threads(3)
    try:
        assert bfloat16_speedup(CPU, kernels) > 0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert seen == [1, 1]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_both_dtypes_compute_the_same():
    wide, narrow = (precision.network_kernels(CPU, dtype) for dtype in (torch.float32, torch.bfloat16))
    for one, other in zip(wide, narrow, strict=True):
        expected, given = one(), other()
        assert given.dtype is torch.bfloat16
        assert (given.float() - expected).norm() / expected.norm() < 0.02


@pytest.mark.long
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the names of instruction sets are those of x86")
def test_without_the_instructions_float32_is_chosen_whatever_the_flags_say():
    """oneDNN is told to use no bfloat16 instructions; the flags of the processor, which decided once, do not change."""
    code = (
        "import torch; from voicestyle.precision import choose_dtype; "
        "print(choose_dtype('auto', 'cpu'), torch.cpu.get_capabilities().get('avx512_bf16', False))"
    )

    def chosen(**environment):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    without, flag = chosen(ONEDNN_MAX_CPU_ISA="AVX512_CORE")
    usual, usual_flag = chosen()
    assert without == "torch.float32"
    assert usual in ("torch.float32", "torch.bfloat16")
    assert flag == usual_flag
