"""Answers requests with the models of a server, within its limits."""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from talu.chat.async_chat import AsyncResponse, AsyncStreamingResponse
from talu.chat.builder import Token
from talu.chat.completion import acomplete
from talu.client import AsyncClient
from talu.deadline import Deadline
from talu.server.asked import Asked
from talu.server.failures import Failure
from talu.server.models import Models
from talu.server.options import ServerOptions
from talu.types import Embeddings, FinishReason, Request, StopFlag, Stopped

__all__ = ["Piece", "Service"]

WAITING = 64  # pieces that are read ahead of a slow reader, besides what the models keep
BUSY = "the server has as many requests as it takes ({}): try again later"


class Piece(NamedTuple):
    """A piece of one of several answers.

    Attributes:
        number: of the answer, from 0.
        piece: the piece.
        answer: the answer so far.
    """

    number: int
    piece: Token
    answer: AsyncStreamingResponse


class Service:
    """The models of a server, and the limits within which they answer.

    Attributes:
        models: the models.
        options: the options of the server.
        stop: ends all answers when it is signalled.
        started: when it was made, in seconds since 1970.
    """

    def __init__(self, models: Models, options: ServerOptions) -> None:
        """Take over the models, which ``close`` closes."""
        self.models = models
        self.options = options
        self.stop = StopFlag()
        self.started = int(time.time())
        self._running = 0

    @property
    def running(self) -> int:
        """How many answers run or wait."""
        return self._running

    def deadline(self) -> Deadline | None:
        """The time by which a request that comes now has to be answered."""
        return Deadline.after(self.options.timeout)

    @contextmanager
    def admitted(self, count: int = 1) -> Generator[None]:
        """Hold the places of this number of answers.

        Raises:
            Failure: there are not enough of them.
        """
        if self._running + count > self.options.max_requests:
            text = BUSY.format(self.options.max_requests)
            raise Failure(429, "SERVER_BUSY", text, retry_after=1)
        self._running += count
        try:
            yield
        finally:
            self._running -= count

    async def answers(self, asked: Asked) -> list[AsyncResponse]:
        """The whole answers.

        Raises:
            TaluError: an answer failed; the others are stopped.
            Failure: the server has no place for them, or stops.
        """
        with self.admitted(len(asked.requests)):
            async with self.models.use(asked.model) as client:
                return await _all([self._whole(client, r, asked.model) for r in asked.requests])

    async def _whole(self, client: AsyncClient, request: Request, model: str) -> AsyncResponse:
        request = await self._complete_settings(client, request, model)
        answer = await acomplete(client, request, model, stop_flag=self.stop)
        _check_end(answer.finish_reason)
        return answer

    async def pieces(self, asked: Asked) -> AsyncGenerator[Piece]:
        """The pieces of all answers, as they come.

        Raises:
            TaluError: an answer failed; the others are stopped.
            Failure: the server has no place for them, or stops.
        """
        with self.admitted(len(asked.requests)):
            async with self.models.use(asked.model) as client, AsyncExitStack() as stack:
                streams: list[AsyncStreamingResponse] = []
                for request in asked.requests:
                    request = await self._complete_settings(client, request, asked.model)
                    stream = await acomplete(
                        client, request, asked.model, stream=True, stop_flag=self.stop
                    )
                    streams.append(await stack.enter_async_context(stream))
                async with aclosing(_merged(streams)) as pieces:
                    async for piece in pieces:
                        _check_end(piece.piece.finish_reason)
                        yield piece

    async def embeddings(
        self, model: str, texts: list[str], *, truncate: bool, prompt_name: str | None
    ) -> tuple[Embeddings, int | None]:
        """The embeddings of texts, and how many tokens the texts have; None if it is not known.

        Raises:
            TaluError: a text cannot be embedded, or the model has no embeddings.
            Failure: there is no such model, or the server has no place.
        """
        with self.admitted():
            async with self.models.use(model) as client:
                vectors = await client.aembed_batch(
                    texts,
                    model,
                    truncate=truncate,
                    prompt_name=prompt_name,
                    timeout=self.options.timeout,
                )
                backend: Any = await client.router.abackend(model)
                if not hasattr(backend, "tokenize"):
                    return vectors, None
                counts = [await client.count_tokens(text, model) for text in texts]
                return vectors, sum(counts)

    async def _complete_settings(
        self, client: AsyncClient, request: Request, model: str
    ) -> Request:
        """The request; an answer without a limit may take what is left of the context."""
        if request.config.given.get("max_tokens") is not None:
            return request
        try:
            backend = await client.router.abackend(model, deadline=request.deadline, stop=self.stop)
        except Stopped:
            raise stopping() from None
        if backend.max_context_length is None:
            return request
        config = request.config.override(max_tokens=backend.max_context_length)
        return replace(request, config=config)

    async def close(self) -> None:
        """Stop all answers, and close the models."""
        self.stop.signal()
        await self.models.close()


async def _all(answers: Sequence[Coroutine[Any, Any, AsyncResponse]]) -> list[AsyncResponse]:
    """All answers; the first error cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer) for answer in answers]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def stopping() -> Failure:
    """Why an answer ends that was stopped with the server."""
    return Failure(503, "SERVER_STOPPING", "the server is stopping", retry_after=1)


def _check_end(reason: FinishReason | None) -> None:
    if reason is FinishReason.CANCELLED:
        raise stopping()


async def _merged(streams: Sequence[AsyncStreamingResponse]) -> AsyncGenerator[Piece]:
    """The pieces of several streams, in the order in which they come."""
    queue: asyncio.Queue[Piece | Exception | None] = asyncio.Queue(WAITING)

    async def read(index: int, stream: AsyncStreamingResponse) -> None:
        try:
            async for piece in stream:
                await queue.put(Piece(index, piece, stream))
            await queue.put(None)
        except Exception as error:  # noqa: BLE001 - the reader of the queue raises it
            await queue.put(error)

    tasks = [asyncio.create_task(read(index, stream)) for index, stream in enumerate(streams)]
    left = len(tasks)
    try:
        while left:
            piece = await queue.get()
            if isinstance(piece, Exception):
                raise piece
            if piece is None:
                left -= 1
            else:
                yield piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
