"""HTTP and gRPC clients, sync and async, behind one interface, with a clock that only their pauses move."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from tests.support.scripted_grpc import ScriptedService
from tests.support.scripted_http import ScriptedServer
from voicestyle.client import AsyncClient, AsyncGrpcClient, Client, GrpcClient, retry


@dataclass
class Clock:
    """The time of the clients: it stands still except for their pauses."""

    now: float = 100.0
    pauses: list = field(default_factory=list)

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds):
        self.sleep(seconds)


@dataclass
class Runner:
    """Makes a client for each call, sync or async; `arguments` are those of its constructor."""

    kinds: tuple
    is_async: bool
    address: str

    def client(self, arguments):
        return self.kinds[self.is_async](self.address, **arguments or {})

    def call(self, method, *values, arguments=None, **options):
        if not self.is_async:
            with self.client(arguments) as client:
                return getattr(client, method)(*values, **options)

        async def run():
            async with self.client(arguments) as client:
                return await getattr(client, method)(*values, **options)

        return asyncio.run(run())

    def generate(self, audio=b"voice", arguments=None, **options):
        return self.call("generate", audio, arguments=arguments, **options)

    def events(self, audio=b"voice", arguments=None, stop=lambda event: False, into=None, **options):
        """A stream's events, up to the first at which to `stop`; also in `into` if the stream ends in an error."""
        events = [] if into is None else into
        if not self.is_async:
            with self.client(arguments) as client:
                for event in client.stream(audio, **options):
                    events.append(event)
                    if stop(event):
                        break
            return events

        async def run():
            async with self.client(arguments) as client, aclosing(client.stream(audio, **options)) as stream:
                async for event in stream:
                    events.append(event)
                    if stop(event):
                        break
            return events

        return asyncio.run(run())


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The clock of all clients. The drawn jitter is always the largest, so that the pauses are 0.5, 1, 2 … seconds."""
    clock = Clock()
    monkeypatch.setattr(retry, "clock", lambda: clock.now)
    monkeypatch.setattr(retry, "draw", lambda: 1.0)
    monkeypatch.setattr(retry, "sleep", clock.sleep)
    monkeypatch.setattr(retry, "sleep_async", clock.sleep_async)
    return clock


@pytest.fixture
def server():
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def service():
    with ScriptedService() as service:
        yield service


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def http(request, server):
    return Runner((Client, AsyncClient), request.param, server.url)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def grpc_runner(request, service):
    return Runner((GrpcClient, AsyncGrpcClient), request.param, service.target)
