"""Checks the tools of a request, whatever its protocol. This module is pure."""

from collections.abc import Sequence
from typing import Any

from talu.tools.definition import Tool
from talu.tools.use import ToolUse

__all__ = ["use_of"]


def use_of(tools: Sequence[Tool], choice: str | None, parallel: bool | None) -> ToolUse:
    """What the model may call, and has to.

    ``auto`` and ``none`` say nothing without tools, and so does ``parallel``.

    Raises:
        ValidationError: two tools have the same name, or the choice is none of them.
    """
    settings: dict[str, Any] = {}
    if tools:
        settings = {"tools": tools, "parallel_tool_calls": parallel}
    if tools or choice not in ("auto", "none"):
        settings["tool_choice"] = choice
    use, _ = ToolUse.of(settings, allow_async=True)
    use.check()
    return use
