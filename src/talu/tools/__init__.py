"""Functions that a model can call: ``tool``, ``Tool``, and what carries out their calls.

They are loaded on first use.
"""

from typing import TYPE_CHECKING

from talu.first_use import on_first_use

if TYPE_CHECKING:
    from talu.tools.calls import ToolCall, ToolRun
    from talu.tools.definition import Tool, ToolSource
    from talu.tools.functions import as_tool, tool

__all__ = ["Tool", "ToolCall", "ToolRun", "ToolSource", "as_tool", "tool"]

HOMES = {
    "talu.tools.calls": ("ToolCall", "ToolRun"),
    "talu.tools.functions": ("as_tool", "tool"),
    "talu.tools.definition": ("Tool", "ToolSource"),
}

if not TYPE_CHECKING:
    __getattr__ = on_first_use(__name__, HOMES)


def __dir__() -> list[str]:
    return __all__
