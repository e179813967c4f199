"""Functions that a model can call: ``tool``, ``Tool``, and what carries out their calls."""

from talu.tools.tool import Tool, ToolSource

__all__ = ["Tool", "ToolSource"]
