"""Reports which keywords of a tool's schema the grammar of the calls enforces.

Arguments that are one JSON value are spelled by the grammar of the schema, whose report says it.
In the other notations, arguments are spelled one by one by rules of fewer keywords: what is not
certainly in these rules is reported as checked.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import filterfalse
from typing import Any

from talu.exceptions import StructuredOutputError
from talu.structured.keywords import pointer
from talu.structured.report import SchemaReport
from talu.tool_formats.description import ToolFormat
from talu.tool_formats.schemas import parameters_of, type_of

__all__ = ["tool_reports"]

Schema = Mapping[str, Any]

OF_STRING = ("maxLength", "minLength", "pattern", "type")  # that stands without quotes
SCALARS = ("boolean", "integer", "null", "number")


def tool_reports(
    form: ToolFormat,
    tools: Mapping[str, Mapping[str, Any]],
    report: Callable[[dict[str, Any]], SchemaReport],
) -> dict[str, SchemaReport]:
    """A report for each tool whose arguments a grammar constrains.

    Args:
        form: how calls are written.
        tools: OpenAI-style definitions by the name of the tool.
        report: the report on a schema that is spelled as JSON.
    """
    found = {}
    for name, tool in tools.items():
        schema = parameters_of(tool)
        try:
            whole = report(schema)
        except StructuredOutputError:  # the rules of the arguments may have been possible
            continue
        given = tool.get("function", tool).get("parameters") or {}
        added = [pointer("#", key) for key in schema.keys() - given.keys()]
        held = tuple(place for place in whole.enforced if place not in added)
        if form.style == "json":
            found[name] = replace(whole, enforced=held)
            continue
        is_held = _certainly_held(form, schema)
        found[name] = replace(
            whole,
            enforced=tuple(filter(is_held, held)),
            checked=(*whole.checked, *filterfalse(is_held, held)),
        )
    return found


def _certainly_held(form: ToolFormat, schema: Schema) -> Callable[[str], bool]:
    """Says of the place of a keyword whether the rules of single arguments hold it."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return lambda place: False
    held = ["#/properties", "#/type"]
    held += ["#/additionalProperties"] * (schema.get("additionalProperties") is False)
    held += ["#/required"] * (properties.keys() >= {*(schema.get("required") or ())})
    below: list[str] = []
    for key, each in properties.items():
        path = pointer("#", "properties", key)
        if not isinstance(each, Mapping):
            continue
        kind = each.get("type")
        constants = next((name for name in ("const", "enum") if name in each), None)
        if constants is not None:
            values = [each["const"]] if constants == "const" else each["enum"]
            held.append(pointer(path, constants))
            held += [pointer(path, "type")] * all(kind in type_of(value) for value in values)
        elif kind in SCALARS or _is_json(form, kind):
            below.append(f"{path}/")
        elif kind == "string":
            held += [pointer(path, name) for name in OF_STRING]
    return lambda place: place in held or place.startswith(tuple(below))


def _is_json(form: ToolFormat, kind: object) -> bool:
    """Whether an argument of this type is spelled by the grammar of its own schema."""
    if form.style == "pythonic":
        return kind in ("array", "object", "string")
    return form.style == "tagged" and kind in ("array", "object")
