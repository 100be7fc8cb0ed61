"""A gRPC server with scripted responses: bytes for an OK response, a status to fail with, or a function of either."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc

from voicestyle.client.grpc_client import MESSAGE_BYTES
from voicestyle.client.grpc_messages import SERVICE, PredictionResponse, PredictionsRequest, TorchServeHealthResponse


@dataclass
class ScriptedService:
    """`script` holds the responses to come; `requests` and `metadata` those received so far."""

    script: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    metadata: list = field(default_factory=list)

    def __enter__(self):
        limits = [(f"grpc.max_{way}_message_length", MESSAGE_BYTES) for way in ("send", "receive")]
        self._server = grpc.server(ThreadPoolExecutor(4), options=limits)
        calls = {
            "Predictions": grpc.unary_unary_rpc_method_handler(
                self.predictions, PredictionsRequest.FromString, PredictionResponse.SerializeToString
            ),
            "Ping": grpc.unary_unary_rpc_method_handler(
                lambda request, context: TorchServeHealthResponse(health='{\n "status": "Healthy"\n}'),
                bytes,
                TorchServeHealthResponse.SerializeToString,
            ),
        }
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, calls)])
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()

    def predictions(self, request, context):
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        response = self.script.pop(0)
        if callable(response):
            response = response()
        if isinstance(response, grpc.StatusCode):
            response = (response, "scripted failure")
        if isinstance(response, tuple):
            context.abort(*response)
        return PredictionResponse(prediction=response)
