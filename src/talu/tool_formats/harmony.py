"""Reads and constrains answers in the format of gpt-oss."""

from talu.tool_formats.description import Reasoning, ToolFormat

__all__ = ["HARMONY", "REASONING", "is_harmony"]

HARMONY = ToolFormat(code="harmony")
REASONING = Reasoning("<|channel|>analysis<|message|>", "<|end|>")


def is_harmony(source: str) -> bool:
    """Whether a template writes this format."""
    return "<|channel|>" in source and "<|message|>" in source and "<|call|>" in source
