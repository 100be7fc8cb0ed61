"""What stands on either side of the handler: a pipeline without mathematics, and TorchServe's frontend.

The frontend is TorchServe's Java part as far as continuous batching goes; the worker's Python part, which
encodes the replies, is the real one.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from ts.service import Service

from voicestyle.engine import Progress
from voicestyle.errors import InputError
from voicestyle.face import Face, Preview
from voicestyle.options import Settings

BATCH_SIZE = 4
HANDED_OVER = 30  # TorchServe's batchSize


@dataclass
class FakePipeline:
    """Keeps count. Some audio makes it fail: b"text" is refused, b"bug", b"unshowable" and b"unrenderable" are bugs."""

    capacity: int = BATCH_SIZE
    breaks_at_step: bool = False
    together: bool = True
    requests: dict = field(default_factory=dict)
    calls: list = field(default_factory=list)  # how many were running at each step
    prepared: int = 0
    manifest = SimpleNamespace(name="fake", version="3")

    def loaded(self, folder, *, device, capacity, caps, dtype):
        self.folder, self.device, self.capacity, self.caps, self.dtype = folder, device, capacity, caps, dtype
        return self

    @property
    def live(self):
        return len(self.requests)

    def prepare(self, audio, options):
        if audio == b"text":
            raise InputError("not_audio", "audio must be a sound file")
        if audio == b"bug":
            raise RuntimeError("a bug")
        self.prepared += 1
        steps = 4 if options.steps is None else options.steps
        settings = Settings(
            steps,
            options.seed or 0,
            options.size or 256,
            options.format or "png",
            options.output or "image",
            options.previews or 0,
            options.preset or "default",
        )
        return SimpleNamespace(audio=audio, settings=settings)

    def join(self, key, prepared):
        assert self.live < self.capacity
        steps = prepared.settings.steps
        self.requests[key] = SimpleNamespace(
            audio=prepared.audio, settings=prepared.settings, step=0, steps=steps, batch=0
        )

    def advance(self):
        if self.breaks_at_step:
            raise RuntimeError("CUDA error")
        running = [request for request in self.requests.values() if request.step < request.steps]
        self.calls.append(len(running))
        if not self.together:
            running = sorted(running, key=lambda request: request.step)[:1]
        for request in running:
            request.step += 1
            request.batch = max(request.batch, self.calls[-1])

    def progress(self):
        return {key: Progress(r.step, r.steps, r.step / 100) for key, r in self.requests.items()}

    def preview(self, key):
        if self.requests[key].audio == b"unshowable":
            raise RuntimeError("no preview")
        return Preview(b"JPEG at %d" % self.requests[key].step, 256)

    def render(self, key):
        request = self.requests[key]
        if request.audio == b"unrenderable":
            raise RuntimeError("no image")
        del self.requests[key]
        settings = request.settings
        face = Face(
            image=settings.format.encode() + b" of " + bytes(request.audio),
            format=settings.format,
            trace=[0.25, 0.75],
            seed=settings.seed,
            steps=settings.steps,
            preset=settings.preset,
            size=settings.size,
            prototypes=[3, 1, 2],
            largest_batch=request.batch,
            audio_seconds=9.0,
            speech_seconds=8.0,
            timings={"decode": 0.01},
        )
        return SimpleNamespace(encoded=lambda: self.encode(face))

    def encode(self, face):
        return face

    def remove(self, key):
        del self.requests[key]


@dataclass
class Response:
    status: int
    headers: dict
    body: bytes


class Frontend:
    """Hands all live requests to the worker in every call, and does with its replies what TorchServe 0.12 does."""

    def __init__(self, handler, model_dir: Path, **limits) -> None:
        metrics = SimpleNamespace(add_time=lambda *_: None)
        self.service = Service("voicestyle", str(model_dir), None, handler.handle, None, BATCH_SIZE, True, metrics)
        self.service.set_cl_socket(None)
        self.service.context.model_yaml_config = {"handler": {"live_requests": BATCH_SIZE, **limits}}
        handler.initialize(self.service.context)
        self.waiting: dict[str, dict] = {}
        self.jobs: dict[str, dict] = {}
        self.responses: dict[str, Response] = {}
        self.streams: dict[str, Response] = {}  # answers of which chunks went out
        self.gone: set[str] = set()

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

    def leave(self, key):
        """The client hangs up; TorchServe sees it when it next sends a chunk."""
        self.gone.add(key)

    def call(self):
        while self.waiting and len(self.jobs) < HANDED_OVER:
            key = next(iter(self.waiting))
            self.jobs[key] = self.waiting.pop(key)
        code, message, predictions = decode(self.service.predict(list(self.jobs.values())))
        assert code == 200, f"all of the batch failed: {code} {message}"
        for key, response in predictions:
            assert key in self.jobs, "TorchServe stops a worker that answers for unknown requests"
            job, verdict = self.jobs[key], response.headers.pop("ts_stream_next", None)
            if "headers" not in job:
                assert verdict == "false", "StreamPredictions ends the worker without, and drops calls that go on"
            elif verdict == "true":
                stream = self.streams.setdefault(key, response)
                if stream is not response:
                    stream.body += response.body
                # Cached in the backend from now on: neither fields nor headers come again.
                self.jobs[key] = {"requestId": key.encode(), "parameters": [], "headers": []}
                if key in self.gone:
                    del self.jobs[key]
                continue
            elif verdict == "false":
                assert key in self.streams, "the last chunk of a stream goes out without headers"
                self.streams[key].body += response.body
                response = self.streams[key]
            del self.jobs[key]
            self.responses[key] = response

    def run(self, calls=100):
        while self.jobs or self.waiting:
            assert calls > 0, "requests are left without an answer"
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
