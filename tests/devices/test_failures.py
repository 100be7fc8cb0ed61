"""Which errors are a failed device and which a lack of memory, also where TorchScript has taken their type."""

import warnings

import pytest
import torch

from voicestyle.devices import device_failed, is_out_of_memory, retry_out_of_memory

MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB")
ILLEGAL = torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700)
CUDNN = RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
BUG = RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")

OUT_OF_MEMORY = [
    MEMORY,
    torch.OutOfMemoryError("Allocation on device"),
    torch.AcceleratorError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'", 2),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
]
FAILED = [
    ILLEGAL,
    torch.AcceleratorError("unspecified launch failure", 719),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA driver error: unknown error"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    CUDNN,
]
UNEXPLAINED = [
    BUG,
    KeyError("a"),
    ValueError(""),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
]


def never(device):
    pytest.fail(f"{device} was used")


def raising(error):
    def probe(device):
        assert device == torch.device("cuda:1")
        raise error

    return probe


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_a_lack_of_memory_leaves_the_device_usable(error):
    assert is_out_of_memory(error)
    assert not device_failed(error, "cuda:1", never)


@pytest.mark.parametrize("error", FAILED, ids=str)
def test_an_error_of_the_accelerator_is_a_failed_device_without_asking_it(error):
    assert device_failed(error, "cuda:1", never)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("error", UNEXPLAINED, ids=str)
def test_after_any_other_error_a_cuda_device_is_asked(error):
    assert not is_out_of_memory(error)
    assert not device_failed(error, "cuda:1", lambda device: None)
    assert device_failed(error, "cuda:1", raising(ILLEGAL))
    assert device_failed(error, "cuda:1", raising(BUG))
    assert not device_failed(error, "cuda:1", raising(MEMORY))


@pytest.mark.parametrize("error", [*UNEXPLAINED, *FAILED], ids=str)
def test_a_cpu_never_fails_and_is_never_asked(error):
    assert not device_failed(error, "cpu", never)


def test_the_default_probe_uses_the_device():
    if torch.cuda.is_available():
        assert not device_failed(BUG, "cuda:0")
    else:
        assert device_failed(BUG, "cuda:0")  # it cannot be used here


def test_errors_that_led_to_an_error_count():
    def chained(error, cause):
        try:
            try:
                raise cause
            except type(cause):
                raise error  # noqa: B904, the implicit chain
        except type(error) as found:
            return found

    assert device_failed(chained(KeyError("a"), ILLEGAL), "cuda:1", never)
    assert is_out_of_memory(chained(KeyError("b"), MEMORY))
    assert device_failed(chained(RuntimeError("CUDA error: unknown error"), MEMORY), "cuda:1", never)
    explicit = ValueError("c")
    explicit.__cause__ = RuntimeError("cuDNN error: CUDNN_STATUS_MAPPING_ERROR")
    explicit.__cause__.__cause__ = explicit  # a circle ends
    assert device_failed(explicit, "cuda:1", never)


@pytest.fixture(scope="module")
def raise_in_torchscript():
    """Raise an error in an operator that a scripted module calls, and return what arrives."""
    to_raise = []

    def operator(x: torch.Tensor) -> torch.Tensor:
        raise to_raise[-1]

    library = torch.library.Library("voicestyle_tests", "DEF")
    library.define("fail(Tensor x) -> Tensor")
    library.impl("fail", operator, "CompositeExplicitAutograd")

    class Failing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.voicestyle_tests.fail(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.script(Failing())

    def call(error):
        to_raise.append(error)
        with pytest.raises(Exception, match="TorchScript") as caught:
            module(torch.ones(2))
        return caught.value

    yield call
    library._destroy()


def test_torchscript_takes_the_type_and_keeps_the_text(raise_in_torchscript):
    assert type(raise_in_torchscript(MEMORY)) is RuntimeError  # else the text need not decide
    assert is_out_of_memory(raise_in_torchscript(MEMORY))
    assert not device_failed(raise_in_torchscript(MEMORY), "cuda:1", never)
    assert type(raise_in_torchscript(ILLEGAL)) is RuntimeError
    assert device_failed(raise_in_torchscript(ILLEGAL), "cuda:1", never)
    assert device_failed(raise_in_torchscript(CUDNN), "cuda:1", never)
    assert not is_out_of_memory(raise_in_torchscript(ILLEGAL))
    bug = raise_in_torchscript(BUG)
    assert not is_out_of_memory(bug)
    assert not device_failed(bug, "cuda:1", lambda device: None)


class Memory:
    """Lacks memory until it was freed `times` times."""

    def __init__(self, monkeypatch, times, error=MEMORY):
        self.times, self.error, self.calls = times, error, 0
        monkeypatch.setattr(torch.cuda, "empty_cache", self.free)

    def free(self):
        self.times -= 1

    @retry_out_of_memory
    def work(self, value, *, more):
        self.calls += 1
        if self.times > 0:
            raise self.error
        return value + more


def test_a_call_without_memory_is_repeated_once_after_memory_was_freed(monkeypatch):
    memory = Memory(monkeypatch, 1)
    assert memory.work(2, more=3) == 5
    assert memory.calls == 2
    memory = Memory(monkeypatch, 2)
    with pytest.raises(torch.OutOfMemoryError):
        memory.work(2, more=3)
    assert memory.calls == 2


def test_other_errors_are_not_repeated(monkeypatch):
    memory = Memory(monkeypatch, 1, BUG)
    with pytest.raises(RuntimeError, match="size of tensor"):
        memory.work(2, more=3)
    assert (memory.calls, memory.times) == (1, 1)


def test_the_repeated_call_comes_after_the_tensors_of_the_first_are_free(monkeypatch):
    from weakref import ref

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    held = []

    @retry_out_of_memory
    def work():
        if not held:
            activations = torch.ones(8)
            held.append(ref(activations))
            raise MEMORY.__class__("CUDA out of memory")
        assert held[0]() is None
        return True

    assert work()
