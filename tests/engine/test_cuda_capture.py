"""CudaCapture against a recorded `torch.cuda`: its stream and pool, the order of its work, what a failure leaves."""

from contextlib import contextmanager

import pytest
import torch

from voicestyle.engine import CaptureError, CudaCapture
from voicestyle.engine.step_graphs import WARM_UP_RUNS, capture_stream


@pytest.fixture(autouse=True)
def other_process():
    """Without the stream of an earlier test, and without leaving one."""
    capture_stream.cache_clear()
    yield
    capture_stream.cache_clear()


class RecordedCuda:
    """Stands for `torch.cuda`: records each call and on which stream it was made, as `current`.

    fails_at: "begin" or "end" of a capture, or "replay".
    """

    def __init__(self, fails_at=None):
        self.calls = []
        self.fails_at = fails_at
        self.streams, self.pools = [], 0
        self.current = self.default = RecordedStream(self, "default")

    def Stream(self):
        self.streams.append(RecordedStream(self, f"stream {len(self.streams)}"))
        return self.streams[-1]

    def CUDAGraph(self):
        return RecordedGraph(self)

    def graph_pool_handle(self):
        self.pools += 1
        return f"pool {self.pools - 1}"

    def current_stream(self):
        return self.current

    def set_stream(self, stream):
        self.current = stream

    @contextmanager
    def device(self, device):
        yield

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph, pool, stream):
        """Like torch's: a failure to end the capture replaces the error of its body, and leaves its stream current."""
        self.current = stream
        self.calls.append(("capture", str(stream), pool))
        if self.fails_at == "begin":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore about memory")
        try:
            yield
        except BaseException:
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904
        if self.fails_at == "end":
            raise RuntimeError("CUDA error: out of memory")
        self.current = self.default


class RecordedStream:
    def __init__(self, cuda, name):
        self.cuda, self.name = cuda, name

    def __str__(self):
        return self.name

    def wait_stream(self, other):
        self.cuda.calls.append(("wait", self.name, other.name))

    def synchronize(self):
        self.cuda.calls.append(("synchronize", self.name))


class RecordedGraph:
    def __init__(self, cuda):
        self.cuda = cuda

    def replay(self):
        self.cuda.calls.append(("replay", self.cuda.current.name))
        if self.cuda.fails_at == "replay":
            raise torch.AcceleratorError("CUDA error: out of memory")


def record(monkeypatch, **options):
    cuda = RecordedCuda(**options)
    names = ("Stream", "CUDAGraph", "graph_pool_handle", "current_stream", "set_stream", "device", "stream", "graph")
    for name in names:
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    return cuda, CudaCapture(torch.device("cuda", 0))


def test_runs_warm_up_on_the_stream_of_the_capture_and_a_replay_comes_after_them(monkeypatch):
    cuda, capture = record(monkeypatch)
    replay = capture(lambda: cuda.calls.append(("run", cuda.current.name)))
    assert cuda.calls == [
        ("wait", "stream 0", "default"),  # what was written before, such as zeros, is there
        *[("run", "stream 0")] * WARM_UP_RUNS,
        ("capture", "stream 0", "pool 0"),
        ("run", "stream 0"),
        ("wait", "default", "stream 0"),
        ("replay", "default"),
        ("synchronize", "default"),
    ]
    assert cuda.current is cuda.default
    cuda.calls.clear()
    cuda.current = other = RecordedStream(cuda, "other")
    replay()
    assert cuda.calls == [("replay", "other")]
    assert cuda.current is other


def test_all_captures_share_one_stream_and_one_pool(monkeypatch):
    cuda, capture = record(monkeypatch)
    for _ in range(5):
        capture(lambda: None)
    assert (len(cuda.streams), cuda.pools) == (1, 1)
    captures = [call for call in cuda.calls if call[0] == "capture"]
    assert captures == [("capture", "stream 0", "pool 0")] * 5


def test_another_capture_on_the_device_has_the_same_stream_and_a_pool_of_its_own(monkeypatch):
    """Each stream keeps workspaces for good, and a pool whose graphs are gone cannot be used again."""
    cuda, capture = record(monkeypatch)
    capture(lambda: None)
    CudaCapture(torch.device("cuda", 0))(lambda: None)
    captures = [call for call in cuda.calls if call[0] == "capture"]
    assert captures == [("capture", "stream 0", "pool 0"), ("capture", "stream 0", "pool 1")]
    CudaCapture(torch.device("cuda", 1))
    assert len(cuda.streams) == 2


def fails_in_run(number):
    """A step that fails in its run of this number, counted from 0."""
    runs = []

    def run():
        runs.append(None)
        if len(runs) == number + 1:
            raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be …")

    return run


@pytest.mark.parametrize(
    ("fails_at", "run", "cause"),
    [
        (None, fails_in_run(WARM_UP_RUNS), "operation not permitted when stream is capturing"),
        (None, fails_in_run(0), "operation not permitted when stream is capturing"),
        ("begin", lambda: None, "CUDA out of memory. Tried to allocate 2 GiB."),
        ("end", lambda: None, "CUDA error: out of memory"),
        ("replay", lambda: None, "CUDA error: out of memory"),
    ],
    ids=["in the capture", "in a run before it", "no memory", "at its end", "in the first replay"],
)
def test_a_failed_capture_names_its_first_cause_and_leaves_the_current_stream(monkeypatch, fails_at, run, cause):
    cuda, capture = record(monkeypatch, fails_at=fails_at)
    with pytest.raises(CaptureError) as raised:
        capture(run)
    assert str(raised.value) == f"a step could not be captured as a CUDA graph: {cause}"
    assert isinstance(raised.value.__cause__, Exception)
    assert cuda.current is cuda.default
    assert cuda.calls.count(("replay", "default")) == (fails_at == "replay")


def test_an_engine_without_a_complete_capture_has_no_graphs(monkeypatch):
    from tests.support.tiny_engine import engine

    for batched in (True, False):
        _, capture = record(monkeypatch)
        captured = []

        def second_fails(run, capture=capture, captured=captured):
            captured.append(run)
            if len(captured) == 2:
                raise CaptureError("no memory")
            return capture(run)

        running = engine(capacity=4, batched=batched)
        with pytest.raises(CaptureError, match="no memory"):
            running.capture(second_fails)
        assert not running.captured
