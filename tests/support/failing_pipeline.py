"""A fake pipeline on a device that fails, or lacks memory, in one call; and requests that are in each stage by then."""

import json
import threading
from dataclasses import dataclass, field

import torch

from tests.support.fake_torchserve import FakePipeline
from voicestyle import devices

LONG = {"X_VoiceStyle_Steps": 480, "X_VoiceStyle_Previews": 15}  # a preview every 30 steps
QUICK = {"X_VoiceStyle_Preset": "instant", "X_VoiceStyle_Steps": 0}

# By stage: the options of a request, and the method that is called for it in this stage.
STAGES = {
    "prepare": ({}, "prepare"),
    "start": ({}, "start"),
    "start without steps": (QUICK, "start"),
    "render without steps": (QUICK, "render_all"),
    "step": ({}, "step"),
    "progress": ({}, "progress"),
    "preview": ({"X_VoiceStyle_Steps": 4, "X_VoiceStyle_Previews": 3}, "preview"),
    "render": ({"X_VoiceStyle_Steps": 1}, "render_all"),
    "remove": (LONG, "remove"),
}
MOST_CALLS = 40  # of the handler, until a stage is reached


def illegal_access():
    return torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700)


def lack_of_memory():
    return RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


@dataclass
class FailingPipeline(FakePipeline):
    """Raises `error` once, in the method `fails_in`; if it `is_final`, every later use of the device fails too.

    raised: the error, once it was raised. calls_after: calls since a final error. probes: how often the device was
    asked whether it can be used. may_encode: images are encoded once it is set.
    """

    fails_in: str | None = None
    error: Exception | None = None
    is_final: bool = True
    raised: Exception | None = None
    calls_after: int = 0
    probes: int = 0
    may_encode: threading.Event = field(default_factory=threading.Event)

    def fail(self, method, error, *, is_final=True):
        self.fails_in, self.error, self.is_final, self.raised = method, error, is_final, None

    def use(self, method):
        if self.raised and self.is_final:
            self.calls_after += 1
            raise illegal_access()
        if method == self.fails_in and not self.raised:
            self.raised = self.error
            raise self.error

    def device_failed(self, error):
        return devices.device_failed(error, "cuda:0", self.probe)

    def probe(self, device):
        self.probes += 1
        if self.raised and self.is_final:
            raise illegal_access()

    def prepare(self, audio, options):
        self.use("prepare")
        return super().prepare(audio, options)

    def start(self, requests):
        if requests:  # the batch calls it in every iteration
            self.use("start")
        super().start(requests)

    def step(self, requests):
        self.use("step")
        super().step(requests)

    def progress(self, requests):
        self.use("progress")
        return super().progress(requests)

    def preview(self, request):
        self.use("preview")
        return super().preview(request)

    def render_all(self, requests):
        self.use("render_all")
        return super().render_all(requests)

    def remove(self, request):
        super().remove(request)  # the engine forgets an item before it uses the device
        self.use("remove")

    def encode(self, face):
        assert self.may_encode.wait(timeout=60)
        return super().encode(face)


def fill(frontend, pipeline):
    """A request whose image is being encoded, and two running ones, over HTTP with previews and over gRPC."""
    frontend.post("encoded", X_VoiceStyle_Steps=1)
    frontend.post("stream", **LONG)
    frontend.call_grpc("grpc", audio=b"voice", steps=b"480")
    frontend.call()
    assert sorted(pipeline.steps) == ["grpc", "stream"]
    assert pipeline.rendered == 1
    assert not frontend.responses


def fail_in_stage(frontend, pipeline, stage, error, *, is_final=True, protocol="http"):
    """Send the request `new`, and call the handler until `error` was raised in this stage of it."""
    options, method = STAGES[stage]
    if protocol == "http":
        frontend.post("new", **options)
    else:
        inputs = {name.rpartition("_")[2].lower(): str(value).encode() for name, value in options.items()}
        frontend.call_grpc("new", audio=b"voice", **inputs)
    if stage == "remove":
        frontend.disconnect("new")
    pipeline.fail(method, error, is_final=is_final)
    call_until_raised(frontend, pipeline)


def call_until_raised(frontend, pipeline):
    for _ in range(MOST_CALLS):
        frontend.call()
        if pipeline.raised:
            return
    raise AssertionError(f"{pipeline.fails_in} was not called for {MOST_CALLS} calls of the handler")


def codes(responses):
    """By request, the code of its error, be it the whole response or the last line of a stream; None for a face."""
    return {key: _code(response) for key, response in responses.items()}


def _code(response):
    if response.headers["content-type"].startswith("image/"):
        return None
    return json.loads(response.body.splitlines()[-1]).get("error", {}).get("code")
