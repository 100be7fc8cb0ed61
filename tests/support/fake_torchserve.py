"""A pipeline without networks, and TorchServe's frontend, on either side of the handler.

The frontend does what TorchServe's Java part does in continuous batching; the worker's Python part, which encodes the
replies, is the real one.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from ts.service import Service

from voicestyle import devices
from voicestyle.errors import InputError
from voicestyle.face import Face, Preview
from voicestyle.options import Settings
from voicestyle.pipeline import Progress

BATCH_SIZE = 4
MAX_PASSED = 30  # TorchServe's batchSize


def computing(**values):
    """How a pipeline computes, for `Metrics.describe`."""
    known = {"device": "cpu", "dtype": "float32", "batching": "sequential", "graphs": "off", "capacity": 8}
    return SimpleNamespace(**known | {"step_seconds": {}} | values)


@dataclass
class FakePipeline:
    """Counts steps. Some audio makes it fail: b"text" is rejected, b"bug", b"no preview" and b"no image" are faults."""

    capacity: int = BATCH_SIZE
    fails_at_step: bool = False
    capture_error: Exception | None = None  # raised by a load that captures CUDA graphs
    batched: bool = True
    steps: dict = field(default_factory=dict)  # steps taken, by the id of each running request
    calls: list = field(default_factory=list)  # how many requests were running at each step
    render_calls: list = field(default_factory=list)  # the ids of the requests of each call
    measured_capacity: int = 2
    prepared: int = 0
    rendered: int = 0
    manifest = SimpleNamespace(name="fake", version="3")

    def loaded(self, folder, *, device, capacity, iteration_seconds, caps, dtype, batched, graphs):
        self.folder, self.device, self.caps, self.dtype = folder, device, caps, dtype
        self.asked_capacity, self.iteration_seconds = capacity, iteration_seconds
        self.capacity = self.measured_capacity if capacity is None else capacity
        self.graphs = graphs
        if self.capture_error is not None and graphs == "on":
            raise self.capture_error
        return self

    @property
    def computing(self):
        return computing(capacity=self.capacity)

    def prepare(self, audio, options):
        if audio == b"text":
            raise InputError("not_audio", "audio must be a sound file")
        if audio == b"bug":
            raise RuntimeError("a bug")
        self.prepared += 1
        return SimpleNamespace(audio=audio, settings=Settings(**{"steps": 4, "seed": 0, "size": 256} | options.given()))

    def start(self, requests):
        for request in requests:
            if request.steps:
                assert len(self.steps) < self.capacity
                self.steps[request.id] = 0

    def step(self, requests):
        if self.fails_at_step:
            raise RuntimeError("a step failed")
        assert not self.batched or {request.id for request in requests} == set(self.steps)
        self.calls.append(len(self.steps))
        for request in requests:
            self.steps[request.id] += 1
            if self.steps[request.id] == request.steps:
                del self.steps[request.id]

    def progress(self, requests):
        steps = {request.id: self.steps.get(request.id, request.steps) for request in requests}
        return {request.id: Progress(steps[request.id], request.steps, steps[request.id] / 100) for request in requests}

    def preview(self, request):
        if request.prepared.audio == b"no preview":
            raise RuntimeError("no preview")
        return Preview(b"JPEG at %d" % self.steps[request.id], 256)

    def render_all(self, requests):
        self.render_calls.append([request.id for request in requests])
        return [self.render(request) for request in requests]

    def render(self, request):
        if request.prepared.audio == b"no image":
            raise RuntimeError("no image")
        self.rendered += 1
        settings = request.prepared.settings
        face = Face(
            image=settings.format.encode() + b" of " + bytes(request.prepared.audio),
            settings=settings,
            trace=[0.25, 0.75],
            prototypes=[3, 1, 2],
            largest_batch=request.largest_batch,
            dtype="float32",
            audio_seconds=9.0,
            speech_seconds=8.0,
            timings={"decode": 0.01},
        )
        return SimpleNamespace(encode=lambda: self.encode(face))

    def encode(self, face):
        return face

    def remove(self, request):
        del self.steps[request.id]

    def is_out_of_memory(self, error):
        return devices.is_out_of_memory(error)

    def device_failed(self, error):
        return devices.device_failed(error, "cpu")


@dataclass
class Response:
    status: int
    headers: dict
    body: bytes


class Frontend:
    """Passes all live requests to the worker in every call, and treats its replies as TorchServe 0.12 does."""

    def __init__(self, handler, model_dir: Path, **limits) -> None:
        metrics = SimpleNamespace(add_time=lambda *_: None)
        self.service = Service("voicestyle", str(model_dir), None, handler.handle, None, BATCH_SIZE, True, metrics)
        self.service.set_cl_socket(None)
        self.service.context.model_yaml_config = {"handler": {"live_requests": BATCH_SIZE, **limits}}
        handler.initialize(self.service.context)
        self.waiting: dict[str, dict] = {}
        self.jobs: dict[str, dict] = {}
        self.responses: dict[str, Response] = {}
        self.streams: dict[str, Response] = {}  # responses of which chunks were sent
        self.disconnected: set[str] = set()

    def post(self, key, body=b"voice", form=None, **headers):
        fields = {"body": body} if form is None else form
        self._queue(key, fields, {"Host": "here", "url_path": "/predictions/voicestyle", **headers})

    def call_grpc(self, key, **inputs):
        self._queue(key, inputs, None)

    def _queue(self, key, fields, headers):
        self.waiting[key] = {
            "requestId": key.encode(),
            "parameters": [
                {"name": name, "contentType": "", "value": bytearray(value)} for name, value in fields.items()
            ],
        }
        if headers is not None:
            self.waiting[key]["headers"] = [
                {"name": spelled(name).encode(), "value": str(value).encode()} for name, value in headers.items()
            ]

    def disconnect(self, key):
        """The client disconnects; TorchServe notices when it next sends a chunk."""
        self.disconnected.add(key)

    def call(self):
        while self.waiting and len(self.jobs) < MAX_PASSED:
            key = next(iter(self.waiting))
            self.jobs[key] = self.waiting.pop(key)
        code, message, predictions = decode(self.service.predict(list(self.jobs.values())))
        assert code == 200, f"all of the batch failed: {code} {message}"
        for key, response in predictions:
            assert key in self.jobs, "TorchServe stops a worker that answers for unknown requests"
            job, more = self.jobs[key], response.headers.pop("ts_stream_next", None)
            if "headers" not in job:
                assert more == "false", "StreamPredictions ends the worker without, and drops calls that go on"
            elif more == "true":
                stream = self.streams.setdefault(key, response)
                if stream is not response:
                    stream.body += response.body
                # The worker has it from now on: neither fields nor headers are passed again.
                self.jobs[key] = {"requestId": key.encode(), "parameters": [], "headers": []}
                if key in self.disconnected:
                    del self.jobs[key]
                continue
            elif more == "false":
                assert key in self.streams, "the last chunk of a stream goes out without headers"
                self.streams[key].body += response.body
                response = self.streams[key]
            del self.jobs[key]
            self.responses[key] = response

    def run(self, calls=100):
        while self.jobs or self.waiting:
            assert calls > 0, "requests are left without a response"
            self.call()
            calls -= 1
        return self.responses


def spelled(name):
    """A header's name for a keyword; `url_path` is TorchServe's own."""
    return name if name == "url_path" else name.replace("_", "-")


def decode(message):
    """Reply of the worker to (code, message, [(key, Response)]), as ModelResponseDecoder reads it."""
    at = 0

    def integer():
        nonlocal at
        at += 4
        return struct.unpack_from("!i", message, at - 4)[0]

    def blob():
        nonlocal at
        length = integer()
        at += length
        return bytes(message[at - length : at])

    code, text, predictions = integer(), blob().decode(), []
    while (length := integer()) != -1:
        at += length
        key = bytes(message[at - length : at]).decode()
        blob()  # content type; it is among the headers too
        status = integer()
        blob()  # phrase
        headers = {blob().decode(): blob().decode() for _ in range(integer())}
        predictions.append((key, Response(status, headers, blob())))
    return code, text, predictions
