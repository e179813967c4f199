"""Writes the grammar of calls, from the description of a format and the schemas of the tools."""

import json
from collections.abc import Mapping
from typing import Any

from talu.exceptions import StructuredOutputError
from talu.tool_formats.description import KEY, Tagged, ToolFormat, literal_of
from talu.tool_formats.markers import marker_of
from talu.tool_formats.rules import Rules, Schema, escaped
from talu.tool_formats.schemas import JSON_TYPES, types_of
from talu.tool_formats.values import KEY_NAME, GemmaValues, python_value_rule

__all__ = ["calls_rule", "marked_start", "plain_text"]

ANY_KEY = '/[^<>\\s"=]{1,64}/'


def calls_rule(rules: Rules, form: ToolFormat, tools: Mapping[str, Schema], *, many: bool) -> str:
    """What spells calls from the name of the first one on.

    Args:
        rules: where rules are added.
        form: how calls are written.
        tools: the schemas of the arguments, by the name of the tool.
        many: whether several calls are allowed.

    Raises:
        StructuredOutputError: nothing satisfies a schema, or it is too complex.
    """
    after = rules.parts(form.after_name)
    one = rules.add(
        " | ".join(
            f"{json.dumps(name)} {after} {_arguments_of(name, rules, form, schema)}"
            for name, schema in tools.items()
        )
    )
    closing = rules.parts(form.closing)
    if not many or form.following is None:
        return f"{one} {closing}"
    following = rules.parts(form.following)
    return f"{one} ({following} {one})* {closing}"


def marked_start(rules: Rules, form: ToolFormat, calls: str, *, seen: bool) -> str:
    """What spells the opening of the first call, and calls after it.

    Args:
        rules: where rules are added.
        form: how calls are written.
        calls: what spells calls from the first name on.
        seen: the answer may have other text before the marker of the call.
    """
    opening, marker = literal_of(form.opening), marker_of(form)
    rest = opening[len(marker) :]
    spelled, space = rules.literal(marker), ""
    if not seen:
        spelled = f"/\\s{{0,4}}/ {spelled}"
    elif not spelled.startswith("<["):  # the token that ended it may have more than the marker
        spelled = rules.lazy(f"/(?s:.*){escaped(marker)}/")
        space = "/[ \\t\\r\\n]{0,64}/ " if rest.lstrip() != rest else ""
    body = rest.lstrip() if space else rest
    after = " ".join(filter(None, (rules.literal(body), rules.parts(form.opening[1:]))))
    return f"{spelled} {space}{after} {calls}"


def plain_text(rules: Rules, form: ToolFormat) -> str:
    """What spells any text without a call."""
    marker = marker_of(form)
    if rules.literal(marker).startswith("<["):
        return "/(?s:.*)/"
    start = "(?s:.*)" if form.anywhere else "\\s*"
    return rules.add(f"/(?s:.*)/ & ~/{start}{escaped(marker)}(?s:.*)/", terminal=True)


def _arguments_of(name: str, rules: Rules, form: ToolFormat, schema: Schema) -> str:
    """The arguments of one tool, which an error names."""
    try:
        return _arguments(rules, form, schema)
    except StructuredOutputError as error:
        problem = error.details.get("problem")
        raise StructuredOutputError(
            f"the parameters of the tool {name!r} cannot be followed: {problem}",
            details={**error.details, "tool": name},
        ) from error


def _arguments(rules: Rules, form: ToolFormat, schema: Schema) -> str:
    match form.style:
        case "json":
            return rules.value(schema, schema)
        case "gemma":
            return GemmaValues(rules, schema, form.quote).object(schema)
        case "pythonic":
            return _keywords(rules, schema)
        case "tagged":
            assert form.tagged is not None
            return _tags(rules, form.tagged, schema)


def _properties(schema: Schema) -> list[tuple[str, Any, bool]] | None:
    """Names, schemas and whether each is required; None if any name is allowed."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        closed = properties == {} or schema.get("additionalProperties") is False
        return [] if closed else None
    required = schema.get("required") or ()
    return [(key, each, key in required) for key, each in properties.items()]


def _keywords(rules: Rules, schema: Schema) -> str:
    """Keyword arguments of Python."""
    properties = _properties(schema)
    if properties is None:
        one = rules.add(f'{KEY_NAME} "=" {rules.value({}, schema)}')
        return f'({one} (", " {one})*)?'
    items = [
        (f"{key}=", python_value_rule(rules, each, schema), required)
        for key, each, required in properties
    ]
    return rules.in_order(items, ", ")


def _tags(rules: Rules, tagged: Tagged, schema: Schema) -> str:
    """Arguments with a tag each."""
    properties = _properties(schema)
    if properties is None:
        if KEY in tagged.closing:  # the name stands twice, which no grammar can demand
            return '""'
        value = _tagged_value(rules, tagged, "", {}, schema)
        one = rules.add(f"{rules.literal(tagged.opening)} {ANY_KEY} {value}")
        more = rules.add(f"{rules.literal(tagged.separator + tagged.opening)} {ANY_KEY} {value}")
        return f"({one} {more}*)?"
    items = [
        (tagged.opening + key, _tagged_value(rules, tagged, key, each, schema), required)
        for key, each, required in properties
    ]
    return rules.in_order(items, tagged.separator)


def _tagged_value(rules: Rules, tagged: Tagged, key: str, schema: Any, root: Schema) -> str:
    """What stands between a key and the next argument."""
    closing = tagged.closing.replace(KEY, key)
    types = types_of(schema, root)
    options = []
    kinds: dict[str, set[str]] = {}
    for kind, literal in tagged.values:
        if kind in types:
            kinds.setdefault(literal, set()).add(kind)
    for literal, named in kinds.items():
        before = rules.literal(literal)
        if "string" in named and not tagged.quoted:
            options.append(f"{before} {rules.string(_of(schema), root, closing)}")
            named = named - {"string"}
        if named:
            narrowed = _of(schema)
            if named < (types if types < JSON_TYPES else JSON_TYPES):
                narrowed = {"allOf": [narrowed, {"type": sorted(named)}]}
            value = rules.value(narrowed or {"type": sorted(named)}, root)
            if tagged.python and named <= {"boolean", "null"}:
                value = python_value_rule(rules, narrowed, root)
            options.append(f"{before} {value} {rules.literal(closing)}")
    return rules.add(" | ".join(options) or '""')


def _of(schema: Any) -> Schema:
    return schema if isinstance(schema, Mapping) else {}
