"""Both kinds of HTTP and gRPC clients behind one face, with a clock that only their pauses move."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from tests.support.scripted_grpc import ScriptedService
from tests.support.scripted_http import ScriptedServer
from voicestyle.client import AsyncClient, AsyncGrpcClient, Client, GrpcClient, Retry, Settings


@dataclass
class Clock:
    """Stands still but for the pauses; `draw` always gives the upper end, so that a pause is what backoff allows."""

    now: float = 100.0
    pauses: list = field(default_factory=list)

    def __call__(self):
        return self.now

    def draw(self):
        return 1.0

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds):
        self.sleep(seconds)


@dataclass
class Asker:
    """One client for each question: a sync or an async one."""

    kinds: tuple
    is_async: bool
    address: str
    clock: Clock

    def client(self, **settings):
        settings = Settings(**{"clock": self.clock, "draw": self.clock.draw, "retry": Retry(4, 1, 8)} | settings)
        sleep = self.clock.sleep_async if self.is_async else self.clock.sleep
        return self.kinds[self.is_async](self.address, settings, sleep=sleep)

    def call(self, method, *arguments, settings=None, **options):
        if not self.is_async:
            with self.client(**settings or {}) as client:
                return getattr(client, method)(*arguments, **options)

        async def ask():
            async with self.client(**settings or {}) as client:
                return await getattr(client, method)(*arguments, **options)

        return asyncio.run(ask())

    def generate(self, audio=b"voice", settings=None, **options):
        return self.call("generate", audio, settings=settings, **options)

    def events(self, audio=b"voice", settings=None, stop=lambda event: False, into=None, **options):
        """A stream's events, up to the first at which to `stop`; `into` has them even where the stream ends badly."""
        events = [] if into is None else into
        if not self.is_async:
            with self.client(**settings or {}) as client:
                for event in client.stream(audio, **options):
                    events.append(event)
                    if stop(event):
                        break
            return events

        async def ask():
            async with (
                self.client(**settings or {}) as client,
                aclosing(client.stream(audio, **options)) as stream,
            ):
                async for event in stream:
                    events.append(event)
                    if stop(event):
                        break
            return events

        return asyncio.run(ask())


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def server():
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def service():
    with ScriptedService() as service:
        yield service


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def http(request, server, clock):
    return Asker((Client, AsyncClient), request.param, server.url, clock)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def grpc_asker(request, service, clock):
    return Asker((GrpcClient, AsyncGrpcClient), request.param, service.target, clock)
