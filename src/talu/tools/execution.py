"""Carries out tool calls: checks their arguments, calls the functions, and checks the results."""

import asyncio
import contextlib
import contextvars
import dataclasses
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from datetime import time as time_of_day
from enum import Enum
from functools import partial
from threading import current_thread, main_thread
from typing import Any
from uuid import UUID

from talu.bridge import run_in_background
from talu.error_text import shortened, shown
from talu.exceptions import ToolExecutionError
from talu.structured.type_schemas import is_model
from talu.threads import in_daemon_thread
from talu.tools.calls import ToolCall, ToolRun, told
from talu.tools.definition import Tool

__all__ = ["Runs", "arguments_of", "execute", "execute_async", "result_text"]

MAX_RESULT = 1_000_000  # characters
MAX_DEPTH = 100  # of a result
AT_ONCE = 32  # calls of one answer that run at the same time


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The checked arguments of a call; see ``ToolCall.parsed_arguments``."""
    try:
        arguments = json.loads(call.arguments, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _unfit(call, f"they are not JSON ({error})") from error
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
        work = partial(_in_context, context, partial(_finished, call, arguments))
        value = run_in_background(work)
    else:
        try:
            value = tool.run(arguments)
        except Exception as error:
            raise _raised(call, error) from error
    result_text(value, call)
    return value


async def execute_async(call: ToolCall) -> Any:
    """Like ``execute``, awaited."""
    value = await _finished(call, arguments_of(call))
    result_text(value, call)
    return value


async def _in_context(context: contextvars.Context, make: Callable[[], Awaitable[Any]]) -> Any:
    """The result of an awaitable that runs in the context of another thread."""

    async def run() -> Any:
        return await make()

    return await asyncio.get_running_loop().create_task(run(), context=context)


async def _finished(call: ToolCall, arguments: dict[str, Any]) -> Any:
    """The result of the function, within its time limit."""
    tool = _tool_of(call)
    try:
        async with asyncio.timeout(tool.timeout) as limit:
            value = await _called(tool, arguments)
    except TimeoutError as error:
        if not limit.expired():  # the function's own
            raise _raised(call, error) from error
        goes_on = "" if tool.is_async else ", and its thread goes on"
        late = f"the tool {call.name!r} did not finish within {tool.timeout:g} seconds{goes_on}"
        raise ToolExecutionError(late, "TOOL_TIMEOUT", _about(call)) from None
    except Exception as error:
        raise _raised(call, error) from error
    return value


async def _called(tool: Tool, arguments: dict[str, Any]) -> Any:
    if tool.is_async:
        return await _awaited(partial(tool.run, arguments))
    value = await in_daemon_thread(f"talu-tool-{tool.name}", _guarded, tool, arguments)
    return await _awaited(lambda: value) if isinstance(value, Awaitable) else value


async def _awaited(make: Callable[[], Awaitable[Any]]) -> Any:
    """The result of an awaitable, whose own endings of tasks and programs are errors."""
    task = asyncio.current_task()
    try:
        return await make()
    except asyncio.CancelledError as error:
        if task is None or task.cancelling():
            raise
        raise _Ended(_shown(error)) from error
    except Exception:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
            raise  # of the user
        raise _Ended(_shown(error)) from error


def _guarded(tool: Tool, arguments: dict[str, Any]) -> Any:
    """Call the function; what a future cannot hold, or what would end the loop, is an error."""
    try:
        return tool.run(arguments)
    except StopIteration as error:
        raise _Ended(_shown(error)) from error
    except Exception:
        raise
    except BaseException as error:
        raise _Ended(_shown(error)) from error


class _Ended(Exception):
    """The function raised what ends a task, a thread or a program."""


def result_text(value: object, call: ToolCall | None = None) -> str:
    """The text of a result for the model: a text as it is, anything else as JSON.

    Dataclasses, pydantic models, enums, dates, sets and tuples are written as their plain forms.

    Raises:
        ToolExecutionError: it has no JSON form, or more than 1,000,000 characters.
    """
    about = _about(call)
    what = "the result" if call is None else f"the result of the tool {call.name!r}"
    try:
        text = str.__str__(value) if isinstance(value, str) else _json(value)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        wrong = f"{what} has no JSON form: {error}"
        raise ToolExecutionError(wrong, "TOOL_RESULT_INVALID", about) from error
    if len(text) > MAX_RESULT:
        wrong = f"{what} has {len(text):,} characters; the limit is {MAX_RESULT:,}"
        raise ToolExecutionError(wrong, "TOOL_RESULT_INVALID", about)
    return text


def _json(value: object) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any, depth: int = 0) -> Any:
    """The value in JSON's own types."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    deeper = partial(_plain, depth=depth + 1)
    match value:
        case Enum():
            return deeper(value.value)
        case None | bool() | str() | int() | float():
            return value
        case date() | time_of_day():
            return value.isoformat()
        case UUID():
            return str(value)
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise TypeError(f"a key of an object is not text: {shown(list(value))}")
            return {key: deeper(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [deeper(each) for each in value]
    if is_model(type(value)):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: deeper(getattr(value, name)) for name in names}
    raise TypeError(f"{shown(value)} is of the type {type(value).__name__}")


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
                output = result_text(await _finished(call, arguments), call)
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
    what = str(error) if isinstance(error, _Ended) else _shown(error)
    failure = f"the tool {call.name!r} failed with {what}"
    return ToolExecutionError(failure, "TOOL_FAILED", _about(call))


def _shown(error: BaseException) -> str:
    """An error as text; also one whose own text cannot be made."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - of a class of the user
        text = f"{type(error).__name__}, whose text cannot be made"
    return shortened(text.encode("utf-8", "backslashreplace").decode())


def _about(call: ToolCall | None) -> dict[str, object]:
    return {} if call is None else {"tool": call.name, "call_id": call.id}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
