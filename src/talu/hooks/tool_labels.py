"""Bounds the labels under which tool calls are counted.

Models call tools that do not exist, programs make tools with new names, and functions raise errors
with codes of their own; a label with ever new values would fill the memory of what collects them.
"""

from talu.tools.calls import ToolRun

__all__ = ["OTHER", "UNKNOWN", "ToolLabels"]

MAX_TOOLS = 200  # names of tools
UNKNOWN, OTHER = "(unknown)", "(other)"  # no tools can have these names
FAILED = "TOOL_FAILED"
CODES = frozenset(
    {
        FAILED,
        "TOOL_ARGUMENTS_INVALID",
        "TOOL_CANCELLED",
        "TOOL_REFUSED",
        "TOOL_RESULT_INVALID",
        "TOOL_TIMEOUT",
        "TOOL_UNKNOWN",
    }
)


class ToolLabels:
    """The names of tools that are told apart: those that came first."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def of(self, run: ToolRun) -> tuple[str, str]:
        """The label of the tool of a call, and of its outcome: ``ok`` or the code of its error."""
        outcome = "ok"
        if run.error is not None:
            outcome = run.error.code if run.error.code in CODES else FAILED
        return UNKNOWN if run.call.tool is None else self._name(run.name), outcome

    def _name(self, name: str) -> str:
        if name not in self._names:
            if len(self._names) >= MAX_TOOLS:
                return OTHER
            self._names.add(name)
        return name
