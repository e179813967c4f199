"""Writes the choice of tools for servers, and checks that an answer follows it. It is pure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from talu.backends.remote.providers import Provider
from talu.first_use import loaded
from talu.types import Event, FinishReason, Request, ToolCallDelta, ToolCallEvent

if TYPE_CHECKING:  # loaded when a server is asked to enforce a schema
    from talu.structured.report import SchemaReport

__all__ = ["TOOL_SETTINGS", "ToolChecks", "chosen", "enforced_reports", "strict_of"]

TOOL_SETTINGS = ("tools", "tool_choice", "parallel_tool_calls")
KINDS = ("auto", "none", "required")


def chosen(
    request: Request, provider: Provider
) -> tuple[list[Mapping[str, Any]], str | None, str | None]:
    """The tools to send, the kind of choice if one was made, and the name of the tool to call.

    A server that takes no names gets this tool alone, and has to call one.
    """
    tools, choice = list(request.tools), request.tool_choice
    if choice is None or "tool_choice" not in provider.settings(raw=False):
        return tools, None, None
    if choice in KINDS:
        return tools, choice, None
    if provider.names_tools:
        return tools, "named", choice
    return [tool for tool in tools if _name(tool) == choice], "required", None


def strict_of(tool: Mapping[str, Any], provider: Provider) -> bool:
    """Whether a server is asked to enforce the schema of a tool: if it can, and nobody objects."""
    function = tool.get("function", tool)
    wanted = function.get("strict")
    if not provider.enforces_strict or isinstance(wanted, bool):
        return provider.enforces_strict and bool(wanted)
    found: bool = loaded("talu.backends.remote.strict", "is_strict")(function.get("parameters", {}))
    return found


def enforced_reports(request: Request, provider: Provider) -> "dict[str, SchemaReport]":
    """The reports on the tools whose schemas the server is asked to enforce, by their names."""
    functions = [tool.get("function", tool) for tool in request.tools if strict_of(tool, provider)]
    return {
        function["name"]: loaded("talu.structured.report", "checked_report")(
            function.get("parameters", {}), provider.name
        )
        for function in functions
    }


def _name(tool: Mapping[str, Any]) -> object:
    return tool.get("function", tool).get("name")


class ToolChecks:
    """Keeps what an answer has of calls to what was asked for."""

    def __init__(self, request: Request) -> None:
        """Prepare the checks."""
        self._choice = request.tool_choice
        self._demands = request.demands_call
        self._single = request.parallel_tool_calls is False
        self._names: dict[str, str] = {}  # of the called tools, by the ids of the calls, in order

    def keeps(self, event: Event) -> bool:
        """Whether the user gets this event: all but the calls after one that had to be alone."""
        if not isinstance(event, ToolCallDelta | ToolCallEvent):
            return True
        self._names[event.call_id] = event.name
        return not self._single or event.call_id == next(iter(self._names))

    def notes(self, reason: FinishReason | None, *, has_text: bool) -> list[str]:
        """What the server did not do."""
        notes = []
        choice, calls = self._choice, len(self._names)
        if self._single and calls > 1:
            notes.append(
                f"the server made {calls} tool calls although parallel_tool_calls is False: all "
                "but the first were left out"
            )
        if choice == "none" and calls:
            notes.append("the server called a tool although tool_choice is 'none'")
        if self._demands and not calls and (has_text or reason is FinishReason.STOP):
            notes.append(f"the server called no tool although tool_choice is {choice!r}")
        other = next((name for name in self._names.values() if name != choice), None)
        if self._demands and choice != "required" and other is not None:
            notes.append(f"the server called {other!r} although tool_choice is {choice!r}")
        return notes
