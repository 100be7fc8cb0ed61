"""A real TorchServe with a bundle whose steps take milliseconds, to test the service and not the model."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import grpc
import httpx
import torch
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from tests.support.tiny_bundle import TinyGenerator, tiny_parts_with_mapper
from voicestyle.client import grpc_messages
from voicestyle.manifest import Limits
from voicestyle.serving.metrics_endpoint import exposition

UNRENDERABLE = 48  # pixels; requests of this size fail with `internal`
LONGEST = 500  # steps; a second or more, alone
LIVE, SLOTS = 8, 24  # of the batch; of batch and queue


class FragileGenerator(TinyGenerator):
    """Fails when it renders one of its sizes, after all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [32, 48, 64]

    @torch.jit.export
    def render(self, w: torch.Tensor, noise: list[torch.Tensor], size: int) -> torch.Tensor:
        if size == 48:
            raise RuntimeError("this size cannot be rendered")
        return torch.nn.functional.interpolate(self.forward(w, noise), size=[size, size])


def fragile_parts():
    """Arguments of `write_bundle`: the tiny bundle with a mapper, and a size that cannot be rendered.

    Its limits are the service's own.
    """
    parts = tiny_parts_with_mapper()
    manifest = replace(parts["manifest"], sizes=(32, UNRENDERABLE, 64), limits=Limits())
    return parts | {"manifest": manifest, "generator": FragileGenerator().eval()}


@dataclass(frozen=True)
class Service:
    """The running server, an HTTP client, and a voice."""

    server: object
    http: httpx.Client
    voice: bytes

    @property
    def port(self):
        return self.server.ports.inference

    @property
    def path(self):
        return f"/predictions/{self.server.model}"

    @property
    def pids(self):
        return self.server.worker_pids()

    def post(self, audio=None, /, content_type="application/octet-stream", **options):
        headers = {"Content-Type": content_type, **option_headers(options)}
        return self.http.post(self.server.url, content=self.voice if audio is None else audio, headers=headers)

    @contextmanager
    def stream(self, **options):
        """The events of a request with previews; leaving the block closes its connection."""
        headers = {"Content-Type": "application/octet-stream", **option_headers({"previews": 1} | options)}
        with (
            # verify=False: reading certificates takes longer than a request.
            httpx.Client(timeout=60, trust_env=False, verify=False) as client,
            client.stream("POST", self.server.url, content=self.voice, headers=headers) as response,
        ):
            assert response.status_code == 200, response.read()
            yield (json.loads(line) for line in response.iter_lines())

    @contextmanager
    def grpc(self, service="org.pytorch.serve.grpc.inference.InferenceAPIsService"):
        with grpc.insecure_channel(
            f"127.0.0.1:{self.server.ports.grpc_inference}",
            [("grpc.max_receive_message_length", 2**26), ("grpc.max_send_message_length", 2**26)],
        ) as channel:
            yield Calls(channel, service)

    def makes_faces(self):
        """Whether a request succeeds, once the slots of disconnected requests are free."""
        replies = []
        self.wait_until(lambda: replies.append(self.post(steps=2)) or replies[-1].status_code != 503)
        return replies[-1].status_code == 200

    @contextmanager
    def admitting(self, count=1):
        """Leave the block when `count` more requests have reached the worker."""
        before = self.metric("voicestyle_received_total")
        yield
        self.wait_until(lambda: self.metric("voicestyle_received_total") >= before + count)

    @contextmanager
    def full_queue(self):
        """Within the block, clients use all slots of the batch and the queue; at its end they disconnect."""
        slots = SLOTS - self.in_flight
        with ExitStack() as stack, ThreadPoolExecutor(slots) as threads:
            streams = [self.stream(steps=LONGEST, previews=1) for _ in range(slots)]
            list(threads.map(stack.enter_context, streams))
            yield

    @property
    def in_flight(self):
        """The number of the worker's requests at the end of its last iteration."""
        return int(self.metric("voicestyle_live_requests") + self.metric("voicestyle_waiting_requests"))

    def metric(self, name, **labels):
        """The sum of a metric's samples with these labels."""
        text = exposition(self.server.run.metrics, self.pids).decode()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def wait_until(self, holds, seconds=60):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"the condition was not met in {seconds} s"
            time.sleep(0.005)

    def inputs(self, audio=None, **options):
        fields = {name: str(value).encode() for name, value in options.items()}
        return {"audio": self.voice if audio is None else audio, **fields}

    @property
    def log(self):
        return self.server.log()


class Calls:
    """TorchServe's gRPC methods; each returns JSON or raises grpc.RpcError."""

    def __init__(self, channel, service):
        codec = {
            "request_serializer": grpc_messages.PredictionsRequest.SerializeToString,
            "response_deserializer": grpc_messages.PredictionResponse.FromString,
        }
        self.unary = channel.unary_unary(f"/{service}/Predictions", **codec)
        self.stream = channel.unary_stream(f"/{service}/StreamPredictions", **codec)
        self.both_ways = channel.stream_stream(f"/{service}/StreamPredictions2", **codec)


def message(inputs, model="voicestyle", version=""):
    return grpc_messages.PredictionsRequest(model_name=model, model_version=version, input=inputs)


def option_headers(options):
    return {f"X-VoiceStyle-{name.capitalize()}": str(value) for name, value in options.items()}
