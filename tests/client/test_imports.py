"""What the client exports and what it imports."""

import inspect
import subprocess
import sys

import voicestyle.client

FORBIDDEN = {"torch", "numpy", "cmpc2", "faiss", "PIL", "soundfile", "tqdm", "ts"}
SHARED = {"voicestyle.error_codes", "voicestyle.options", "voicestyle.presets"}  # the tables without dependencies


def test_client_imports_nothing_of_the_service():
    code = "import sys, voicestyle.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"httpx", "grpc"} <= set(loaded)
    assert not FORBIDDEN & set(loaded)
    ours = {name for name in loaded if name.startswith("voicestyle.") and not name.startswith("voicestyle.client")}
    assert ours <= SHARED


def test_client_exports():
    assert sorted(voicestyle.client.__all__) == [
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


def test_all_clients_take_the_same_arguments():
    shared = ["timeout", "connect_timeout", "deadline", "max_retries", "headers", "model"]
    for name in ("Client", "AsyncClient", "GrpcClient", "AsyncGrpcClient"):
        _, *arguments, tls = inspect.signature(getattr(voicestyle.client, name)).parameters.values()
        assert [argument.name for argument in arguments] == shared
        assert all(argument.kind is argument.KEYWORD_ONLY for argument in (*arguments, tls))
        assert tls.name == ("credentials" if "Grpc" in name else "ssl_context")
