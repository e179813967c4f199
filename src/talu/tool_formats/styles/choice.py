"""Chooses what reads the arguments of a call."""

from collections.abc import Mapping
from typing import Any

from talu.tool_formats.description import ToolFormat, literal_of
from talu.tool_formats.schemas import Types
from talu.tool_formats.styles.json_object import JSONObject
from talu.tool_formats.styles.literals import GEMMA, PYTHON, LiteralArguments
from talu.tool_formats.styles.style import ArgumentsReader
from talu.tool_formats.styles.tags import TaggedArguments

__all__ = ["arguments_reader"]


def arguments_reader(form: ToolFormat, parameters: Mapping[str, Any] | None) -> ArgumentsReader:
    """What reads the arguments of one call.

    Args:
        form: how they are written.
        parameters: their schema; None if the tool is not known.
    """
    match form.style:
        case "json":
            return JSONObject()
        case "pythonic":
            return LiteralArguments(PYTHON)
        case "gemma":
            return LiteralArguments(GEMMA(form.quote))
        case "tagged":
            assert form.tagged is not None
            following = literal_of(form.following) if form.following is not None else ""
            ends = (literal_of(form.closing), following)
            return TaggedArguments(form.tagged, Types(parameters), ends)
