"""Clients of the service: typed results, time-outs, and retries where asking again may help.

    with Client("http://127.0.0.1:8080") as client:
        face = client.generate(Path("voice.wav"), steps=30)
    Path("face.png").write_bytes(face.image)

Needs `voicestyle[client]`, and imports neither torch nor any other part of this package.
"""

from voicestyle.client.ask import Options
from voicestyle.client.errors import Busy, ClientError, Refused, ServiceFailed, TimedOut, Unreachable
from voicestyle.client.grpc_client import AsyncGrpcClient, GrpcClient
from voicestyle.client.http_client import AsyncClient, Client
from voicestyle.client.results import Event, Face, Preview, Progress, Retrying, Started
from voicestyle.client.retry import Retry, Settings

__all__ = [
    "AsyncClient",
    "AsyncGrpcClient",
    "Busy",
    "Client",
    "ClientError",
    "Event",
    "Face",
    "GrpcClient",
    "Options",
    "Preview",
    "Progress",
    "Refused",
    "Retry",
    "Retrying",
    "ServiceFailed",
    "Settings",
    "Started",
    "TimedOut",
    "Unreachable",
]
