"""The service over gRPC: `GrpcClient`, and `AsyncGrpcClient` for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
import grpc.aio

from voicestyle.client.answers import read_prediction
from voicestyle.client.ask import Ask, Options, read_audio
from voicestyle.client.errors import ClientError
from voicestyle.client.grpc_calls import (
    PING,
    PING_SECONDS,
    PREDICTIONS,
    channel_options,
    metadata,
    read_health,
    request_message,
    translated,
)
from voicestyle.client.results import Face
from voicestyle.client.retry import Attempts, Settings


class GrpcClient:
    """The service over gRPC. Threads may share one; close it, or use it as a context manager.

    target: `127.0.0.1:7070`. credentials: of a TLS channel; a plain one without them. settings and sleep: as for
    Client, whose errors it raises and whose retries it makes.
    """

    def __init__(
        self,
        target: str,
        settings: Settings | None = None,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings or Settings()
        self._sleep = sleep
        options = channel_options(target)
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, credentials, options)
        self._predictions: Any = self._channel.unary_unary(**vars(PREDICTIONS))
        self._ping: Any = self._channel.unary_unary(**vars(PING))

    def generate(self, audio: bytes | Path, **options: Unpack[Options]) -> Face:
        """The face of a voice: the bytes of an audio file, or its path. Raises ClientError, OSError for the file."""
        ask = Ask(read_audio(audio), **options)
        attempts = Attempts(self.settings)
        while True:
            try:
                return self._attempt(ask, attempts.begin())
            except ClientError as error:
                delay = attempts.pause(error)
            self._sleep(delay)

    def ping(self) -> str:
        """TorchServe's word about itself, asked once; Healthy even without a model. Raises ClientError."""
        with translated():
            answer = self._ping(b"", timeout=PING_SECONDS, metadata=metadata(self.settings))
        return read_health(answer.health)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attempt(self, ask: Ask, seconds: float) -> Face:
        message = request_message(ask, self.settings)
        with translated():
            answer = self._predictions(message, timeout=seconds, metadata=metadata(self.settings))
        return read_prediction(answer.prediction)


class AsyncGrpcClient:
    """`GrpcClient` for asyncio: the same methods and errors. Make and use it inside one running event loop."""

    def __init__(
        self,
        target: str,
        settings: Settings | None = None,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.settings = settings or Settings()
        self._sleep = sleep
        options = channel_options(target)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options)
        self._predictions: Any = self._channel.unary_unary(**vars(PREDICTIONS))
        self._ping: Any = self._channel.unary_unary(**vars(PING))

    async def generate(self, audio: bytes | Path, **options: Unpack[Options]) -> Face:
        """As GrpcClient.generate."""
        ask = Ask(await asyncio.to_thread(read_audio, audio), **options)
        attempts = Attempts(self.settings)
        while True:
            try:
                return await self._attempt(ask, attempts.begin())
            except ClientError as error:
                delay = attempts.pause(error)
            await self._sleep(delay)

    async def ping(self) -> str:
        """As GrpcClient.ping."""
        with translated():
            answer = await self._ping(b"", timeout=PING_SECONDS, metadata=metadata(self.settings))
        return read_health(answer.health)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _attempt(self, ask: Ask, seconds: float) -> Face:
        message = request_message(ask, self.settings)
        with translated():
            answer = await self._predictions(message, timeout=seconds, metadata=metadata(self.settings))
        return read_prediction(answer.prediction)
