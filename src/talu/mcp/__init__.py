"""The tools of MCP servers, as entries of ``tools=``."""

from talu.mcp.source import MCP

__all__ = ["MCP"]
