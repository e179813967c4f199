"""How long connections live: closing, ending, time limits, cancelling, forks and changes."""

import asyncio
import gc
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.forked import in_child
from tests.mcp.conftest import KEY, SERVER, called, command, odd, tool_of

from talu.background import background_loop
from talu.bridge import run_in_background
from talu.deadline import Deadline
from talu.exceptions import StateError, ToolServerError
from talu.mcp import MCP


@pytest.fixture
def shop() -> Iterator[MCP]:
    """A server of its own for each test."""
    with command(env={"API_KEY": KEY}) as source:
        yield source


def process_of(source: MCP) -> int:
    """The process of the program that is a server."""
    return int(called(tool_of(source, "where")).split()[1])


def runs(process: int) -> bool:
    """Whether a process exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def ends(process: int) -> Iterator[None]:
    """What happens inside ends a process; waits for that."""
    opened = os.pidfd_open(process)
    yield
    assert select.select([opened], [], [], 20)[0], "it runs after 20 seconds"
    os.close(opened)


def test_closing_ends_the_program(shop: MCP) -> None:
    process = process_of(shop)
    assert runs(process)
    shop.close()
    assert not runs(process)
    shop.close()


def test_a_program_ends_by_itself_when_its_input_ends(tmp_path: Path) -> None:
    code = "import sys; sys.stdin.read(); open(sys.argv[1], 'w').close()"
    source = MCP(sys.executable, args=["-c", code, str(tmp_path / "ended")], timeout=0.5)
    with source, pytest.raises(ToolServerError, match=r"within timeout=0\.5 seconds"):
        source.open()
    assert (tmp_path / "ended").exists()


def test_ctrl_c_in_a_terminal_does_not_reach_the_program(shop: MCP) -> None:
    assert os.getpgid(process_of(shop)) != os.getpgid(0)


def test_a_closed_server_is_opened_again(shop: MCP) -> None:
    add = tool_of(shop, "add")
    shop.close()
    with pytest.raises(StateError, match="was closed"):
        called(add, a=1, b=1)
    assert called(tool_of(shop, "add"), a=1, b=1) == 2


def test_closing_ends_the_calls_that_are_running(shop: MCP) -> None:
    wait = tool_of(shop, "wait")

    async def closed_meanwhile() -> None:
        call = asyncio.ensure_future(wait.run({}))
        add = tool_of(shop, "add")
        assert await add.run({"a": 1, "b": 1}) == 2  # after the other call
        await shop.aclose()
        with pytest.raises(StateError, match="was closed"):
            await call

    asyncio.run(closed_meanwhile())


def test_closing_on_an_event_loop_does_not_block_it() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    source = MCP(sys.executable, args=["-c", code])

    async def closed() -> None:
        opening = asyncio.ensure_future(source.aopen())
        while source._link is None:
            await asyncio.sleep(0)
        source.close()
        with pytest.raises(StateError, match="was closed"):
            await opening

    asyncio.run(closed())


def test_a_server_ends_when_nothing_refers_to_it() -> None:
    source = command(include=["where"])
    [tool] = source.open()
    process = process_of(source)
    del source
    gc.collect()
    assert runs(int(called(tool).split()[1]))  # the tool still needs it
    with ends(process):
        del tool
        gc.collect()


def test_a_server_that_dies_during_a_call_says_how(shop: MCP) -> None:
    die = tool_of(shop, "die")
    with pytest.raises(ToolServerError, match="ended with the exit status 3") as caught:
        called(die, status=3)
    assert caught.value.code == "TOOL_SERVER_ENDED"
    assert "it said: my key is ***" in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_call_after_the_end_of_a_server_fails_and_the_next_opening_starts_it(shop: MCP) -> None:
    add = tool_of(shop, "add")
    with pytest.raises(ToolServerError):
        called(tool_of(shop, "die"), status=3)
    with pytest.raises(ToolServerError, match="exit status 3"):
        called(add, a=1, b=1)
    assert called(tool_of(shop, "add"), a=1, b=1) == 2


def test_a_server_that_died_between_two_openings_is_started_again(shop: MCP) -> None:
    first = process_of(shop)
    with ends(first):
        os.kill(first, 9)
    assert process_of(shop) != first


def test_the_calls_of_a_server_that_dies_all_end(shop: MCP) -> None:
    wait, die = tool_of(shop, "wait"), tool_of(shop, "die")

    async def all_of_them() -> list[Any]:
        calls = [wait.run({}), wait.run({}), die.run({"status": 0})]
        return await asyncio.gather(*calls, return_exceptions=True)

    codes = [error.code for error in asyncio.run(all_of_them())]
    assert codes == ["TOOL_SERVER_ENDED"] * 3


def test_a_call_has_a_time_limit() -> None:
    answers = {"tools/list": {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}}
    with odd(answers, timeout=2) as source:
        with pytest.raises(ToolServerError, match="within timeout=2 seconds") as caught:
            called(tool_of(source, "a"))
        assert caught.value.code == "TOOL_SERVER_TIMEOUT"
        assert source.open()[0].name == "a"


def test_a_cancelled_call_leaves_the_server_usable(shop: MCP) -> None:
    wait, add = tool_of(shop, "wait"), tool_of(shop, "add")

    async def cancelled() -> object:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await wait.run({})
        return await add.run({"a": 1, "b": 2})

    assert asyncio.run(cancelled()) == 3


def test_an_opening_that_nobody_awaits_any_more_ends_its_program() -> None:
    with odd({"initialize": None}, timeout=None) as source:

        async def cancelled() -> None:
            opening = asyncio.ensure_future(source.aopen())
            while source._link is None:
                await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening

        asyncio.run(cancelled())
        assert source._link is not None
        run_in_background(source._link.connection.wait_closed, Deadline.after(20))


def test_two_openings_at_the_same_time_start_one_program(shop: MCP) -> None:
    async def both() -> list[Any]:
        return await asyncio.gather(shop.aopen(), shop.aopen(), asyncio.to_thread(shop.open))

    first, second, third = asyncio.run(both())
    assert first is second is third


def test_two_openings_after_the_end_of_a_server_start_one_program(shop: MCP) -> None:
    first = process_of(shop)
    with ends(first):
        os.kill(first, 9)

    async def both() -> list[Any]:
        return await asyncio.gather(shop.aopen(), shop.aopen())

    one, two = asyncio.run(both())
    assert one is two


def test_a_server_can_change_its_tools(shop: MCP) -> None:
    before = shop.open()
    assert called(tool_of(shop, "change")) == "changed"
    names = {tool.name for tool in shop.open()}
    assert "prices" in names
    assert "names" not in names
    gone = next(tool for tool in before if tool.name == "names")
    with pytest.raises(ToolServerError, match="names"):
        called(gone)


def test_a_server_that_changes_a_needed_tool_is_an_error() -> None:
    with command(include=["names", "change"]) as source:
        called(tool_of(source, "change"))
        with pytest.raises(Exception, match="include names the tool 'names'"):
            source.open()


def test_a_forked_child_starts_a_server_of_its_own(shop: MCP) -> None:
    add, own = tool_of(shop, "add"), process_of(shop)

    def work() -> None:
        with pytest.raises(StateError, match="open it again in this process"):
            called(add, a=1, b=1)
        assert process_of(shop) != own
        shop.close()

    assert in_child(work) == 0
    assert called(add, a=1, b=2) == 3
    assert process_of(shop) == own


def test_closing_in_a_forked_child_leaves_the_parents_server(shop: MCP) -> None:
    own = process_of(shop)
    assert in_child(shop.close) == 0
    assert process_of(shop) == own


def test_opening_inside_async_code_of_talu_is_refused_and_can_be_awaited(shop: MCP) -> None:
    found: list[Any] = []
    done = threading.Event()

    async def on_the_loop() -> None:
        try:
            with pytest.raises(StateError):
                shop.open()
            found.append(await shop.aopen())
        finally:
            done.set()

    background = background_loop()
    background.post(lambda: found.append(asyncio.ensure_future(on_the_loop())))
    assert done.wait(20)
    assert found[1] == shop.open()


def test_a_program_ends_with_the_interpreter() -> None:
    code = (
        f"import asyncio; from talu.mcp import MCP; source = MCP({sys.executable!r}, "
        f"args=[{str(SERVER)!r}], include=['where']); "
        "print(asyncio.run(source.open()[0].run({})))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    assert not runs(int(shown.stdout.split()[1]))
