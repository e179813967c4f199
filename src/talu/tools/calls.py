"""Defines the calls of a model, and the record of a call that was carried out."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from talu.exceptions import ToolExecutionError
from talu.first_use import loaded

if TYPE_CHECKING:
    from talu.tools.definition import Tool

__all__ = ["ToolCall", "ToolCallFunction", "ToolRun", "failed", "told"]

TOLD = 2_000  # characters of an error that the model is told


class ToolCallFunction(NamedTuple):
    """The function of a call, as in OpenAI's format; ``arguments`` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call requested by the model; ``arguments`` is JSON text as the model wrote it.

    Attributes:
        tool: the tool that carries it out; None when there is none of this name.
    """

    id: str
    name: str
    arguments: str
    tool: "Tool | None" = field(default=None, compare=False, repr=False)

    @property
    def type(self) -> str:
        """The kind of call, which is always ``"function"``."""
        return "function"

    @property
    def function(self) -> ToolCallFunction:
        """The name and the arguments, as in OpenAI's format."""
        return ToolCallFunction(self.name, self.arguments)

    @property
    def needs_approval(self) -> bool:
        """Whether its tool asks for an approval before it is carried out."""
        return self.tool is not None and self.tool.needs_approval

    def parsed_arguments(self) -> dict[str, Any]:
        """The arguments as a dictionary, checked against the tool's schema if it is known.

        Raises:
            ToolExecutionError: they are not a JSON object, or do not fit the schema.
        """
        arguments: dict[str, Any] = loaded("talu.tools.execution", "arguments_of")(self)
        return arguments

    def execute(self) -> Any:
        """Check the arguments and carry out the call; returns what the function returns.

        An async function runs on talu's background event loop. A call that has a time limit runs
        in a thread of its own, which goes on when the time is up.

        Raises:
            ToolExecutionError: the call has no function, its arguments do not fit, the function
                raised or took too long, or its result has no JSON form.
        """
        return loaded("talu.tools.execution", "execute")(self)

    async def execute_async(self) -> Any:
        """Like ``execute``, awaited; a function that is not async runs in a thread of its own."""
        return await loaded("talu.tools.execution", "execute_async")(self)

    def to_dict(self) -> dict[str, object]:
        """The call in OpenAI's format."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


class ToolRun(NamedTuple):
    """A call that talu has carried out, and what the model got as its result.

    Attributes:
        call: the call.
        output: the text that the model got.
        error: why it failed, and ``output`` tells the model so; None for a result of the function.
        began_ns: nanoseconds since 1970, UTC.
        duration_ms: how long it took; 0 for a call that was not begun.
    """

    call: ToolCall
    output: str
    error: ToolExecutionError | None = None
    began_ns: int = 0
    duration_ms: float = 0.0

    @property
    def name(self) -> str:
        """The name of the tool."""
        return self.call.name

    def to_dict(self) -> dict[str, object]:
        """The record as a dictionary for JSON."""
        return {
            "id": self.call.id,
            "name": self.call.name,
            "arguments": self.call.arguments,
            "output": self.output,
            "error": None if self.error is None else self.error.code,
            "duration_ms": self.duration_ms,
        }


def failed(call: ToolCall, problem: str, code: str) -> ToolRun:
    """The record of a call that was not carried out."""
    error = ToolExecutionError(problem, code, {"tool": call.name, "call_id": call.id})
    return ToolRun(call=call, output=told(error), error=error, began_ns=time.time_ns())


def told(error: ToolExecutionError) -> str:
    """What the model is told of a failure."""
    return f"Error: {str(error)[:TOLD]}".encode("utf-8", "backslashreplace").decode()
