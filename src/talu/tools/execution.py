"""Carries out tool calls: checks their arguments, calls the functions, and checks the results."""

import asyncio
import contextlib
import contextvars
import json
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from threading import current_thread, main_thread
from typing import Any, TypeVar

from talu.bridge import run_in_background
from talu.exceptions import ToolExecutionError
from talu.structured.json_reading import json_value
from talu.threads import in_daemon_thread
from talu.tools.calls import ToolCall, ToolRun, told
from talu.tools.definition import Tool
from talu.tools.results import described_error, result_text

__all__ = ["Runs", "arguments_of", "execute", "execute_async"]

T = TypeVar("T")
MOST_THREADS = 1_000  # of one tool; those of calls whose time was up go on
AT_ONCE = 32  # calls of one answer that run at the same time


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The checked arguments of a call; see ``ToolCall.parsed_arguments``."""
    try:
        arguments = json_value(call.arguments)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _unfit(call, f"they are not JSON ({error})") from error
    except ValueError as error:
        raise _unfit(call, str(error)) from error
    if not isinstance(arguments, dict):
        raise _unfit(call, "they are not a JSON object")
    if call.tool is not None:
        problem = call.tool.problem(arguments)
        if problem is not None:
            raise _unfit(call, problem)
    return arguments


def execute(call: ToolCall) -> Any:
    """Carry out a call; see ``ToolCall.execute``."""
    arguments, tool = arguments_of(call), _tool_of(call)
    if tool.is_async or tool.timeout is not None:
        context = contextvars.copy_context()
        work = partial(_finished, call, arguments, partial(_checked, call))
        return run_in_background(partial(_in_context, context, work))
    try:
        return _checked(call, tool.run(arguments))
    except Exception as error:
        raise _raised(call, error) from error


async def execute_async(call: ToolCall) -> Any:
    """Like ``execute``, awaited."""
    return await _finished(call, arguments_of(call), partial(_checked, call))


def _checked(call: ToolCall, value: Any) -> Any:
    """A result that has a text."""
    result_text(value, call)
    return value


async def _in_context(context: contextvars.Context, make: Callable[[], Awaitable[Any]]) -> Any:
    """The result of an awaitable that runs in the context of another thread."""

    async def run() -> Any:
        return await make()

    return await asyncio.get_running_loop().create_task(run(), context=context)


async def _finished(call: ToolCall, arguments: dict[str, Any], finish: Callable[[Any], T]) -> T:
    """What ``finish`` makes of the result of the function, within its time limit.

    A function that blocks the event loop, or ignores that it is cancelled, ends late by itself.
    """
    tool = _tool_of(call)
    try:
        async with asyncio.timeout(tool.timeout) as limit:
            result = await _called(tool, arguments, finish)
    except Exception as error:
        if _is_over(limit):
            raise _late(call, tool) from error
        raise _raised(call, error) from error
    if _is_over(limit):
        raise _late(call, tool)
    return result


def _is_over(limit: asyncio.Timeout) -> bool:
    end = limit.when()
    return limit.expired() or (end is not None and asyncio.get_running_loop().time() >= end)


def _late(call: ToolCall, tool: Tool) -> ToolExecutionError:
    goes_on = "" if tool.is_async else ", and its thread goes on"
    late = f"the tool {call.name!r} did not finish within {tool.timeout:g} seconds{goes_on}"
    return ToolExecutionError(late, "TOOL_TIMEOUT", _about(call))


async def _called(tool: Tool, arguments: dict[str, Any], finish: Callable[[Any], T]) -> T:
    if tool.is_async:
        return finish(await _awaited(partial(tool.run, arguments)))
    name = f"talu-tool-{tool.name}"
    if sum(thread.name == name for thread in threading.enumerate()) >= MOST_THREADS:
        busy = f"{MOST_THREADS:,} earlier calls of it have not returned"
        raise ToolExecutionError(f"the tool {tool.name!r} was not called: {busy}", "TOOL_FAILED")
    value = await in_daemon_thread(name, _guarded, tool, arguments, finish)
    return finish(await _awaited(lambda: value)) if isinstance(value, Awaitable) else value


async def _awaited(make: Callable[[], Awaitable[Any]]) -> Any:
    """The result of an awaitable, whose own endings of tasks and programs are errors."""
    task = asyncio.current_task()
    try:
        return await make()
    except asyncio.CancelledError as error:
        if task is None or task.cancelling():
            raise
        raise _Ended(described_error(error)) from error
    except Exception:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
            raise  # of the user
        raise _Ended(described_error(error)) from error


def _guarded(tool: Tool, arguments: dict[str, Any], finish: Callable[[Any], T]) -> Any:
    """Call the function; what a future cannot hold, or what would end the loop, is an error.

    A result is finished in this thread, because writing a large one takes long.
    """
    try:
        value = tool.run(arguments)
        return value if isinstance(value, Awaitable) else finish(value)
    except StopIteration as error:
        raise _Ended(described_error(error)) from error
    except Exception:
        raise
    except BaseException as error:
        raise _Ended(described_error(error)) from error


class _Ended(Exception):
    """The function raised what ends a task, a thread or a program."""


class Runs:
    """The calls of one answer that are carried out together, on an event loop.

    Attributes:
        begun: the ids of the calls whose functions were called.
    """

    def __init__(self, calls: Sequence[tuple[ToolCall, dict[str, Any]]]) -> None:
        """Prepare calls with their checked arguments; nothing runs before ``next``."""
        self.begun: set[str] = set()
        self._calls = list(calls)
        self._context = contextvars.copy_context()
        self._tasks: dict[asyncio.Task[ToolRun], int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cancelled = False

    async def next(self) -> ToolRun | None:
        """Wait until another call has ended; None after the last one, and once cancelled."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            free = asyncio.Semaphore(AT_ONCE)
            for number, (call, arguments) in enumerate(self._calls):
                work = self._run(call, arguments, free)
                task = self._loop.create_task(work, context=self._context.copy())
                self._tasks[task] = number
        if self._cancelled or not self._tasks:
            self._stop()
            return None
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        if self._cancelled:
            self._stop()
            return None
        first = min(done, key=self._tasks.__getitem__)
        del self._tasks[first]
        return first.result()

    def cancel(self) -> None:
        """Let ``next`` return None soon; from any thread. Threads of functions go on.

        No call begins afterwards that is not in ``begun`` then.
        """
        self._cancelled = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its tasks with it
                self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run(
        self, call: ToolCall, arguments: dict[str, Any], free: asyncio.Semaphore
    ) -> ToolRun:
        """Carry out a call, and record what came of it."""
        async with free:
            self.begun.add(call.id)
            if self._cancelled:  # in this order, because the set is read after the flag was set
                raise asyncio.CancelledError
            began_ns, began = time.time_ns(), time.perf_counter()
            error: ToolExecutionError | None = None
            try:
                output = await _finished(call, arguments, partial(result_text, call=call))
            except ToolExecutionError as failure:
                error, output = failure, told(failure)
            took = (time.perf_counter() - began) * 1000
            return ToolRun(call, output, error, began_ns=began_ns, duration_ms=took)


def _tool_of(call: ToolCall) -> Tool:
    if call.tool is None or not call.tool.runs:
        raise ToolExecutionError(
            f"the call of {call.name!r} has no function here: carry it out yourself, and give its "
            "result to submit_tool_results",
            "TOOL_NOT_BOUND",
            _about(call),
        )
    return call.tool


def _unfit(call: ToolCall, problem: str) -> ToolExecutionError:
    wrong = f"the arguments of the call of {call.name!r} do not fit: {problem}"
    return ToolExecutionError(wrong, "TOOL_ARGUMENTS_INVALID", _about(call))


def _raised(call: ToolCall, error: BaseException) -> ToolExecutionError:
    if isinstance(error, ToolExecutionError):
        return error
    what = str(error) if isinstance(error, _Ended) else described_error(error)
    failure = f"the tool {call.name!r} failed with {what}"
    return ToolExecutionError(failure, "TOOL_FAILED", _about(call))


def _about(call: ToolCall) -> dict[str, object]:
    return {"tool": call.name, "call_id": call.id}
