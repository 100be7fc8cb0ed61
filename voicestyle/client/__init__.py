"""Clients of the service, with typed results, timeouts and retries.

    with Client("http://127.0.0.1:8080") as client:
        face = client.generate("voice.wav", steps=30)
    Path("face.png").write_bytes(face.image)

Needs `voicestyle[client]`. Imports neither torch nor any part of this package that does.
"""

from voicestyle.client.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    BadRequestError,
    OverloadedError,
    ServerError,
)
from voicestyle.client.grpc_client import AsyncGrpcClient, GrpcClient
from voicestyle.client.http_client import AsyncClient, Client
from voicestyle.client.models import Event, Face, Preview, Progress, Retrying, Started

__all__ = [
    "APIConnectionError",
    "APIError",
    "APITimeoutError",
    "AsyncClient",
    "AsyncGrpcClient",
    "BadRequestError",
    "Client",
    "Event",
    "Face",
    "GrpcClient",
    "OverloadedError",
    "Preview",
    "Progress",
    "Retrying",
    "ServerError",
    "Started",
]
