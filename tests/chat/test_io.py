"""Calls of user functions return what the function returned."""

import asyncio

import pytest

from talu.chat.interrupts import run
from talu.chat.io import AsyncIO, SyncIO
from talu.exceptions import ValidationError


def unused() -> None:
    raise AssertionError("no model is opened")


def double(number: int, *, plus: int = 0) -> int:
    return 2 * number + plus


async def awaited(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def test_a_blocking_caller_gets_the_result_of_a_plain_function() -> None:
    assert run(SyncIO(unused).call(double, 3, plus=1)) == 7


def test_a_blocking_caller_of_an_async_function_is_told_what_to_do() -> None:
    with pytest.raises(ValidationError, match=r"awaited is async: give it to AsyncClient"):
        run(SyncIO(unused).call(awaited, 3))


def test_an_awaiting_caller_gets_the_result_of_either_kind_of_function() -> None:
    async def main() -> None:
        io = AsyncIO(unused)
        assert await io.call(double, 3, plus=1) == 7
        assert await io.call(awaited, 3) == 6

    asyncio.run(main())
