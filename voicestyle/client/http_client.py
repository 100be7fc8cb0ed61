"""The service over HTTP: `Client`, and `AsyncClient` for asyncio."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Final, Generic, Self, TypeVar, Unpack, cast
from urllib.parse import quote

import httpx

from voicestyle.client import retry
from voicestyle.client.addresses import base_url, is_loopback
from voicestyle.client.errors import APIConnectionError, APIError, APITimeoutError
from voicestyle.client.models import Event, Face, Preview, Request, Retrying
from voicestyle.client.responses import ResponseParser, parse_error, parse_health
from voicestyle.client.retry import Attempts, Limits
from voicestyle.options import OptionValues

OPERATIONS_URL: Final = "http://127.0.0.1:8083"  # where `voicestyle serve` reports its readiness
PROBE_SECONDS: Final = 5.0

HttpxClient = TypeVar("HttpxClient", httpx.Client, httpx.AsyncClient)


class _BaseClient(Generic[HttpxClient]):
    """What `Client` and `AsyncClient` share."""

    _httpx_client: Callable[..., HttpxClient]

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 600.0,
        connect_timeout: float = 5.0,
        deadline: float = 1800.0,
        max_retries: int = 7,
        headers: Mapping[str, str] | None = None,
        model: str = "voicestyle",
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = Limits(timeout, connect_timeout, deadline, max_retries)
        self._path = f"/predictions/{quote(model, safe='')}"
        self._http = self._httpx_client(
            base_url=base_url(url),
            headers=dict(headers or {}),
            verify=ssl_context or True,
            trust_env=not is_loopback(url),
        )

    def _post(self, request: Request, seconds: float) -> httpx.Request:
        """The HTTP request of one attempt."""
        timeout = httpx.Timeout(seconds, connect=min(seconds, self._limits.connect_timeout))
        return self._http.build_request(
            "POST", self._path, content=request.audio, headers=request.headers(), timeout=timeout
        )


class Client(_BaseClient[httpx.Client]):
    """A client of the service over HTTP. Threads may share one. Close it, or use it as a context manager.

    url: of the service, such as `http://127.0.0.1:8080`. timeout: seconds of one attempt; it includes the time in the
    server's queue, and a retry starts at the end of that queue. connect_timeout: seconds to connect. deadline: seconds
    of all attempts and the pauses between them. max_retries: attempts after the first. headers: sent with each request.
    model: its name on the server. ssl_context: for https, in place of the system's certificates.

    Errors that are `retryable` are raised when the retries or the time are used up, others at once. Timeouts are
    checked whenever data arrives: a response that stops half-way may exceed them by as much as one `timeout`.
    Raises ValueError for a URL or a number that cannot be used.
    """

    _httpx_client = httpx.Client

    def generate(self, audio: bytes | str | Path, **options: Unpack[OptionValues]) -> Face:
        """Return the face for a voice: the bytes of an audio file, or its path.

        options: as in docs/service.md; what is None or left out is the service's choice. Raises APIError, OSError for
        the file, TypeError or ValueError for the arguments.
        """
        return _face_with_previews(list(self.stream(audio, **options)))

    def stream(self, audio: bytes | str | Path, **options: Unpack[OptionValues]) -> Generator[Event]:
        """Yield events up to the face, which is the last one; progress and previews only where `previews` is not 0.

        Where an attempt fails and is repeated, Retrying is yielded and the events start over. Closing the generator
        closes the connection, and the server cancels the request. Raises as `generate` does.
        """
        return self._events(Request.read(audio, options))

    def ping(self) -> str:
        """Return TorchServe's own status without retries; Healthy even if no model is loaded. Raises APIError."""
        with _translated_errors():
            return _parse_ping(self._http.get("/ping", timeout=PROBE_SECONDS))

    def ready(self, operations_url: str = OPERATIONS_URL) -> bool:
        """Return whether the service can make a face now, by its operations port, without retries. Raises APIError."""
        with _translated_errors():
            return _parse_ready(self._http.get(_ready_url(operations_url), timeout=PROBE_SECONDS))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _events(self, request: Request) -> Generator[Event]:
        attempts = Attempts(self._limits)
        while True:
            try:
                yield from self._attempt(request, attempts.begin())
                return
            except APIError as error:
                retrying = attempts.failed(error)
            yield retrying
            retry.sleep(retrying.delay)

    def _attempt(self, request: Request, seconds: float) -> Generator[Event]:
        end = retry.clock() + seconds
        with _translated_errors(), closing(self._http.send(self._post(request, seconds), stream=True)) as response:
            parser = ResponseParser(response.status_code, response.headers)
            for chunk in response.iter_bytes():
                for event in parser.feed(chunk):
                    yield event
                    if isinstance(event, Face):
                        return
                if retry.clock() > end:
                    raise APITimeoutError(f"no face within {seconds:g} s")
            yield from parser.end()


class AsyncClient(_BaseClient[httpx.AsyncClient]):
    """`Client` for asyncio: the same arguments, methods and errors, and timeouts that are always kept.

    Use one in one event loop only.
    """

    _httpx_client = httpx.AsyncClient

    async def generate(self, audio: bytes | str | Path, **options: Unpack[OptionValues]) -> Face:
        """As Client.generate."""
        return _face_with_previews([event async for event in self.stream(audio, **options)])

    async def stream(self, audio: bytes | str | Path, **options: Unpack[OptionValues]) -> AsyncGenerator[Event]:
        """As Client.stream. Use `contextlib.aclosing`: Python closes an abandoned generator late."""
        request = await asyncio.to_thread(Request.read, audio, options)
        attempts = Attempts(self._limits)
        while True:
            try:
                async with aclosing(self._attempt(request, attempts.begin())) as events:
                    async for event in events:
                        yield event
                return
            except APIError as error:
                retrying = attempts.failed(error)
            yield retrying
            await retry.sleep_async(retrying.delay)

    async def ping(self) -> str:
        """As Client.ping."""
        with _translated_errors():
            return _parse_ping(await self._http.get("/ping", timeout=PROBE_SECONDS))

    async def ready(self, operations_url: str = OPERATIONS_URL) -> bool:
        """As Client.ready."""
        with _translated_errors():
            return _parse_ready(await self._http.get(_ready_url(operations_url), timeout=PROBE_SECONDS))

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _attempt(self, request: Request, seconds: float) -> AsyncGenerator[Event]:
        end = asyncio.get_running_loop().time() + seconds
        with _translated_errors():
            # Never around a yield, where the timeout would interrupt the caller's code.
            async with asyncio.timeout_at(end):
                response = await self._http.send(self._post(request, seconds), stream=True)
            body = cast("AsyncGenerator[bytes]", response.aiter_bytes())
            async with aclosing(response), aclosing(body) as chunks:
                parser = ResponseParser(response.status_code, response.headers)
                while True:
                    async with asyncio.timeout_at(end):
                        chunk = await anext(chunks, None)
                    for event in parser.end() if chunk is None else parser.feed(chunk):
                        yield event
                        if isinstance(event, Face):
                            return


def _face_with_previews(events: Sequence[Event]) -> Face:
    """The face at the end of a stream, with the previews of its own attempt."""
    *others, face = events
    assert isinstance(face, Face)
    began = max((at for at, event in enumerate(others) if isinstance(event, Retrying)), default=0)
    return replace(face, previews=tuple(event for event in others[began:] if isinstance(event, Preview)))


@contextmanager
def _translated_errors() -> Generator[None]:
    """Raise this package's errors for those of httpx, and for asyncio's TimeoutError."""
    try:
        yield
    except (httpx.TimeoutException, TimeoutError) as error:
        raise APITimeoutError(f"no response in time: {error!r}") from error
    except httpx.TransportError as error:
        raise APIConnectionError(f"the connection failed: {error!r}") from error


def _ready_url(operations_url: str) -> str:
    return f"{base_url(operations_url)}/ready"


def _parse_ping(response: httpx.Response) -> str:
    if response.status_code != HTTPStatus.OK:
        raise parse_error(response.status_code, response.headers, response.content)
    return parse_health(response.content)


def _parse_ready(response: httpx.Response) -> bool:
    if response.status_code not in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE):
        raise parse_error(response.status_code, response.headers, response.content)
    return response.status_code == HTTPStatus.OK
