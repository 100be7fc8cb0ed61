"""The service over HTTP: `Client`, and `AsyncClient` for asyncio."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing, closing
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack, cast

import httpx

from voicestyle.client.ask import Ask, Options, read_audio
from voicestyle.client.errors import ClientError, TimedOut
from voicestyle.client.http_calls import (
    OPERATIONS,
    Gathering,
    arguments,
    look,
    post,
    read_health,
    read_readiness,
    ready_url,
    translated,
)
from voicestyle.client.reading import Reading
from voicestyle.client.results import Event, Face, Retrying
from voicestyle.client.retry import Attempts, Settings


class Client:
    """The service over HTTP. Threads may share one; close it, or use it as a context manager.

    url: of the service, `http://127.0.0.1:8080`. settings: model, headers, retry and times. tls: of an https URL, the
    system's unless given. sleep: waits between attempts.

    A caller's mistakes raise Refused and are never repeated. Busy, Unreachable, TimedOut and a ServiceFailed that is
    `retryable` are repeated as `settings.retry` says and raised only when attempts or time are used up. Times are
    looked at whenever something arrives: an answer that falls silent half-way may overrun by as much as one attempt.
    """

    def __init__(
        self,
        url: str,
        settings: Settings | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings or Settings()
        self._sleep = sleep
        self._http = httpx.Client(**arguments(url, self.settings, tls))

    def generate(self, audio: bytes | Path, **options: Unpack[Options]) -> Face:
        """The face of a voice: the bytes of an audio file, or its path. Raises ClientError, OSError for the file."""
        gathered = Gathering()
        with closing(self.stream(audio, **options)) as events:
            return next(face for event in events if (face := gathered.add(event)))

    def stream(self, audio: bytes | Path, **options: Unpack[Options]) -> Generator[Event]:
        """What happens until the face is there, which comes last; progress and previews where previews are asked for.

        Where an attempt fails and may be repeated, Retrying says so and all begins anew: the same voice and options
        give the same face. Closing the generator closes the connection, and the server gives the place to another.
        Raises as `generate` does; what is wrong with the arguments at once.
        """
        return self._events(Ask(read_audio(audio), **options))

    def ping(self) -> str:
        """TorchServe's word about itself, asked once; Healthy even without a model. Raises ClientError."""
        with translated():
            return read_health(self._http.get(**look("/ping")))

    def ready(self, operations: str = OPERATIONS) -> bool:
        """Whether the service would make a face now, asked once at its operations port. Raises ClientError."""
        with translated():
            return read_readiness(self._http.get(**look(ready_url(operations))))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _events(self, ask: Ask) -> Generator[Event]:
        attempts = Attempts(self.settings)
        while True:
            try:
                yield from self._attempt(ask, attempts.begin())
                return
            except ClientError as error:
                retrying = Retrying(attempts.made + 1, attempts.pause(error), error)
            yield retrying
            self._sleep(retrying.delay)

    def _attempt(self, ask: Ask, seconds: float) -> Generator[Event]:
        end = self.settings.clock() + seconds
        with translated(), self._http.stream("POST", **post(ask, self.settings, seconds)) as response:
            reading = Reading(response.status_code, response.headers)
            for chunk in response.iter_bytes():
                for event in reading.feed(chunk):
                    yield event
                    if isinstance(event, Face):
                        return
                if self.settings.clock() > end:
                    raise TimedOut(f"no face within {seconds:g} s")
            yield from reading.end()


class AsyncClient:
    """`Client` for asyncio: the same methods and errors, and times that are kept to the second.

    sleep: waits between attempts. Use one from one event loop only.
    """

    def __init__(
        self,
        url: str,
        settings: Settings | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.settings = settings or Settings()
        self._sleep = sleep
        self._http = httpx.AsyncClient(**arguments(url, self.settings, tls))

    async def generate(self, audio: bytes | Path, **options: Unpack[Options]) -> Face:
        """As Client.generate."""
        gathered = Gathering()
        async with aclosing(self.stream(audio, **options)) as events:
            return await anext(face async for event in events if (face := gathered.add(event)))

    async def stream(self, audio: bytes | Path, **options: Unpack[Options]) -> AsyncGenerator[Event]:
        """As Client.stream. Put `contextlib.aclosing` around it: Python closes a forgotten one late."""
        ask = Ask(await asyncio.to_thread(read_audio, audio), **options)
        attempts = Attempts(self.settings)
        while True:
            try:
                async with aclosing(self._attempt(ask, attempts.begin())) as events:
                    async for event in events:
                        yield event
                return
            except ClientError as error:
                retrying = Retrying(attempts.made + 1, attempts.pause(error), error)
            yield retrying
            await self._sleep(retrying.delay)

    async def ping(self) -> str:
        """As Client.ping."""
        with translated():
            return read_health(await self._http.get(**look("/ping")))

    async def ready(self, operations: str = OPERATIONS) -> bool:
        """As Client.ready."""
        with translated():
            return read_readiness(await self._http.get(**look(ready_url(operations))))

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _attempt(self, ask: Ask, seconds: float) -> AsyncGenerator[Event]:
        end = asyncio.get_running_loop().time() + seconds
        with translated():
            request = self._http.build_request("POST", **post(ask, self.settings, seconds))
            # Not around a yield: it would interrupt whoever reads the events.
            async with asyncio.timeout_at(end):
                response = await self._http.send(request, stream=True)
            body = cast("AsyncGenerator[bytes]", response.aiter_bytes())
            async with aclosing(response), aclosing(body) as chunks:
                reading = Reading(response.status_code, response.headers)
                while True:
                    async with asyncio.timeout_at(end):
                        chunk = await anext(chunks, None)
                    for event in reading.end() if chunk is None else reading.feed(chunk):
                        yield event
                        if isinstance(event, Face):
                            return
