"""A real TorchServe on a bundle whose steps take milliseconds, so that the service is tried and not the model."""

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

from tests.support.tiny_bundle import TinyGenerator, tiny_parts
from voicestyle.client import grpc_messages
from voicestyle.manifest import Limits
from voicestyle.serving.metrics_endpoint import exposition

UNRENDERABLE = 48  # pixels; faces of this size end as `internal`
LONGEST = 500  # steps; a second or more, alone
LIVE, PLACES = 8, 24  # of the batch, and with the queue


class FragileGenerator(TinyGenerator):
    """Fails at the last moment if asked for one of its sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [32, 48, 64]

    @torch.jit.export
    def render(self, w: torch.Tensor, noise: list[torch.Tensor], size: int) -> torch.Tensor:
        if size == 48:
            raise RuntimeError("this size cannot be rendered")
        return torch.nn.functional.interpolate(self.forward(w, noise), size=[size, size])


def fragile_parts():
    """Arguments of `write_bundle`: the tiny bundle, with as many steps as the service allows and one bad size."""
    parts = tiny_parts()
    manifest = replace(parts["manifest"], sizes=(32, UNRENDERABLE, 64), limits=Limits())
    return parts | {"manifest": manifest, "generator": FragileGenerator().eval()}


@dataclass(frozen=True)
class Service:
    """The running server, a client for it, and a voice."""

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
            # It reads no certificates, which takes longer than a request.
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

    def answers(self):
        """Whether it makes a face, once the places of those who left are free."""
        replies = []
        self.wait_until(lambda: replies.append(self.post(steps=2)) or replies[-1].status_code != 503)
        return replies[-1].status_code == 200

    @contextmanager
    def taken_in(self, count=1):
        """Leave the block only when so many more requests than before have reached the worker."""
        before = self.metric("voicestyle_received_total")
        yield
        self.wait_until(lambda: self.metric("voicestyle_received_total") >= before + count)

    @contextmanager
    def full(self):
        """Within the block all places are taken, in the batch and in the queue, by clients that then leave."""
        places = PLACES - self.in_flight
        with ExitStack() as stack, ThreadPoolExecutor(places) as threads:
            streams = [self.stream(steps=LONGEST, previews=1) for _ in range(places)]
            list(threads.map(stack.enter_context, streams))
            yield

    @property
    def in_flight(self):
        """How many requests the worker had at the end of its last turn."""
        return int(self.metric("voicestyle_live_requests") + self.metric("voicestyle_waiting_requests"))

    def metric(self, name, **labels):
        """The sum of a metric's samples that have these labels."""
        text = exposition(self.server.run.metrics, self.pids).decode()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def wait_until(self, holds, seconds=60):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"it did not come true in {seconds} s"
            time.sleep(0.005)

    def inputs(self, audio=None, **options):
        words = {name: str(value).encode() for name, value in options.items()}
        return {"audio": self.voice if audio is None else audio, **words}

    @property
    def log(self):
        return self.server.log()


class Calls:
    """TorchServe's gRPC methods; each answers with JSON or raises grpc.RpcError."""

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
