"""A gRPC server that plays TorchServe from a script: bytes for an OK answer, or a status to fail with."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc

from voicestyle.client.grpc_calls import MESSAGE_BYTES
from voicestyle.client.grpc_messages import SERVICE, PredictionResponse, PredictionsRequest, TorchServeHealthResponse


@dataclass
class ScriptedService:
    script: list = field(default_factory=list)
    asked: list = field(default_factory=list)
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
        self.asked.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        answer = self.script.pop(0)
        if callable(answer):
            answer = answer()
        if isinstance(answer, grpc.StatusCode):
            answer = (answer, "as the script says")
        if isinstance(answer, tuple):
            context.abort(*answer)
        return PredictionResponse(prediction=answer)
