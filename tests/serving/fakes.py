"""What stands on either side of the handler: a pipeline without mathematics, and TorchServe's frontend.

The frontend is TorchServe's Java part as far as continuous batching goes; the worker's Python part, which
encodes the replies, is the real one.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from ts.service import Service

from voicestyle.errors import CallerError

BATCH_SIZE = 4


@dataclass
class FakePipeline:
    """Keeps count. Some audio makes it fail: b"text" is refused, b"bug" and b"unrenderable" are bugs."""

    capacity: int = BATCH_SIZE
    breaks_at_step: bool = False
    requests: dict = field(default_factory=dict)
    calls: list = field(default_factory=list)
    manifest = SimpleNamespace(name="fake", version="3")

    def loaded(self, folder, *, device, capacity):
        self.folder, self.device, self.capacity = folder, device, capacity
        return self

    @property
    def live(self):
        return len(self.requests)

    def submit(self, key, audio, options):
        assert self.live < self.capacity
        if audio == b"text":
            raise CallerError("not_audio", "audio must be a sound file")
        if audio == b"bug":
            raise RuntimeError("a bug")
        steps = 4 if options.steps is None else options.steps
        self.requests[key] = SimpleNamespace(audio=audio, options=options, step=0, steps=steps, batch=0)
        return options

    def step(self, count):
        if self.breaks_at_step:
            raise RuntimeError("CUDA error")
        running = [request for request in self.requests.values() if request.step < request.steps]
        self.calls.append((len(running), count))
        for request in running:
            request.step = min(request.steps, request.step + count)
            request.batch = max(request.batch, len(running))

    def progress(self):
        return {
            key: SimpleNamespace(step=r.step, steps=r.steps, finished=r.step == r.steps)
            for key, r in self.requests.items()
        }

    def finish(self, key):
        request = self.requests[key]
        if request.audio == b"unrenderable":
            raise RuntimeError("no image")
        del self.requests[key]
        return SimpleNamespace(
            png=b"PNG of " + bytes(request.audio),
            similarity=0.75,
            first_similarity=0.25,
            seed=request.options.seed or 0,
            steps=request.steps,
            size=request.options.size or 256,
            largest_batch=request.batch,
        )

    def remove(self, key):
        del self.requests[key]


@dataclass
class Response:
    status: int
    headers: dict
    body: bytes


class Frontend:
    """Hands all live requests to the worker in every call, and does with its replies what TorchServe 0.12 does."""

    def __init__(self, handler, model_dir: Path) -> None:
        metrics = SimpleNamespace(add_time=lambda *_: None)
        self.service = Service("voicestyle", str(model_dir), None, handler.handle, None, BATCH_SIZE, True, metrics)
        self.service.set_cl_socket(None)
        handler.initialize(self.service.context)
        self.waiting: dict[str, dict] = {}
        self.jobs: dict[str, dict] = {}
        self.responses: dict[str, Response] = {}

    def post(self, key, body=b"voice", form=None, **headers):
        fields = {"body": body} if form is None else form
        self.waiting[key] = {
            "requestId": key.encode(),
            "headers": [
                {"name": name.replace("_", "-").encode(), "value": str(value).encode()}
                for name, value in {"Host": "here", **headers}.items()
            ],
            "parameters": [
                {"name": name, "contentType": "", "value": bytearray(value)} for name, value in fields.items()
            ],
        }

    def leave(self, key):
        """The job is gone, as after a chunk that TorchServe could not deliver."""
        del self.jobs[key]

    def call(self):
        while self.waiting and len(self.jobs) < BATCH_SIZE:
            key = next(iter(self.waiting))
            self.jobs[key] = self.waiting.pop(key)
        code, message, predictions = decode(self.service.predict(list(self.jobs.values())))
        assert code == 200, f"all of the batch failed: {code} {message}"
        for key, response in predictions:
            assert key in self.jobs, "TorchServe stops a worker that answers for unknown requests"
            assert "ts_stream_next" not in response.headers, "a chunk would fix status and headers"
            del self.jobs[key]
            self.responses[key] = response

    def run(self, calls=100):
        while self.jobs or self.waiting:
            assert calls > 0, "requests are left without an answer"
            self.call()
            calls -= 1
        return self.responses


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
