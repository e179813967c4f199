"""Starts the next batch of a model's work while the current one is computed."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Sequence,
)
from typing import TypeVar

__all__ = ["aread_ahead", "read_ahead"]

Started = TypeVar("Started")
Result = TypeVar("Result")


def read_ahead(
    batches: Iterable[Sequence[str]],
    start: Callable[[Sequence[str], int], Started],
    finish: Callable[[Started], Result],
) -> Generator[Result]:
    """The result of each batch, in order.

    Args:
        batches: texts.
        start: begins the work on a batch; also gets the number of its first text.
        finish: waits for the result.
    """
    ahead: list[Started] = []
    first = 0
    for texts in batches:
        ahead.append(start(texts, first))
        first += len(texts)
        if len(ahead) > 1:
            yield finish(ahead.pop(0))
    for started in ahead:
        yield finish(started)


async def aread_ahead(
    batches: AsyncIterable[Sequence[str]],
    start: Callable[[Sequence[str], int], Awaitable[Started]],
    finish: Callable[[Started], Awaitable[Result]],
) -> AsyncGenerator[Result]:
    """Like ``read_ahead``, awaited."""
    ahead: list[Started] = []
    first = 0
    async for texts in batches:
        ahead.append(await start(texts, first))
        first += len(texts)
        if len(ahead) > 1:
            yield await finish(ahead.pop(0))
    for started in ahead:
        yield await finish(started)
