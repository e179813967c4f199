"""Tests of running coroutines without an event loop."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from talu.chat.io import iterate, run


async def numbers(log: list[str]) -> AsyncGenerator[int]:
    try:
        for number in range(3):
            yield number
    finally:
        log.append("closed")


def test_a_coroutine_that_never_suspends_gives_its_value() -> None:
    async def value() -> int:
        return 7

    assert run(value()) == 7


def test_a_coroutine_that_suspends_is_closed_and_an_error() -> None:
    async def sleep() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            log.append("closed")

    log: list[str] = []
    with pytest.raises(RuntimeError, match="suspended in a sync call"):
        run(sleep())
    assert log == ["closed"]


def test_iterating_gives_every_item_and_closes_at_the_end() -> None:
    log: list[str] = []
    assert list(iterate(numbers(log))) == [0, 1, 2]
    assert log == ["closed"]


def test_closing_the_iterator_closes_the_async_generator_at_once_inside_a_loop_too() -> None:
    async def main() -> None:
        items = iterate(numbers(log))
        next(items)
        items.close()
        assert log == ["closed"]

    log: list[str] = []
    asyncio.run(main())


def test_an_exception_passes_through() -> None:
    async def broken() -> AsyncGenerator[int]:
        yield 1
        raise KeyError("mine")

    items = iterate(broken())
    assert next(items) == 1
    with pytest.raises(KeyError):
        next(items)
