"""Refuses JSON Schemas that are too large, refer to nothing, or that no finite value satisfies."""

import json
from collections.abc import Iterator
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeGuard

from talu.error_text import kind_of, shown
from talu.exceptions import StructuredOutputError
from talu.structured.keywords import DRAFTS, draft_of, effective, pointer, subschemas
from talu.structured.references import References, place_of, resolved

__all__ = ["checked_text", "invalid"]

MAX_SIZE = 512 * 1024  # characters as JSON
MAX_DEPTH = 64  # nested objects and arrays of the schema
MAX_ENUM = 10_000  # constants of one enum
MAX_SCHEMAS = 20_000  # schemas in the schema
MAX_CHECKS = 100_000  # of one value; references may double them again and again
IN_PLACE = (  # keywords with schemas for the same value
    "allOf",
    "anyOf",
    "dependencies",
    "dependentSchemas",
    "else",
    "if",
    "not",
    "oneOf",
    "then",
)

LIMITS = (  # of values of a kind
    ("integer", "minimum", "maximum"),
    ("number", "minimum", "maximum"),
    ("string", "minLength", "maxLength"),
    ("array", "minItems", "maxItems"),
    ("object", "minProperties", "maxProperties"),
)

Schema = dict[str, Any]


def checked_text(given: object) -> str:
    """The schema as compact JSON.

    Raises:
        StructuredOutputError: it is not plain JSON, exceeds a limit, is of an unknown draft, has a
            reference that leads nowhere, outside or back without end, or only infinite values
            could satisfy it.
    """
    if not isinstance(given, dict):
        raise invalid(f"must be an object, got {kind_of(given)}")
    _check_depth(given)
    try:
        text = json.dumps(given, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid(f"is not plain JSON: {error}") from error
    if len(text) > MAX_SIZE:
        raise invalid(f"has {len(text):,} characters as JSON; the limit is {MAX_SIZE:,}")
    schema: Schema = json.loads(text)
    _check_draft(schema)
    nodes = dict(_nodes(schema))
    references = References(schema, nodes.values())
    for path, node in nodes.items():
        _check_node(path, node, references)
    _check_finite(schema, nodes)
    _check_work(schema, nodes, references)
    return text


def invalid(problem: str, **details: object) -> StructuredOutputError:
    """The error for a schema with this problem, which is also in its details."""
    return StructuredOutputError(
        f"the JSON Schema of response_format {problem}",
        details={"param": "response_format", "problem": problem, **details},
    )


def _check_depth(schema: object) -> None:
    """Refuse deep values before anything recursive reads them; also those that hold themselves."""
    level: list[object] = [schema]
    seen = 0
    for _ in range(MAX_DEPTH):
        level = [
            each
            for value in level
            for each in _children(value)
            if isinstance(each, dict | list | tuple)
        ]
        seen += len(level)
        if not level:
            return
        if seen > MAX_SIZE:
            raise invalid(f"has more than {MAX_SIZE:,} nested values")
    raise invalid(f"is nested deeper than {MAX_DEPTH} levels")


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value


def _nodes(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """All schemas in a schema, by their pointers; also where only a reference finds one."""
    waiting: list[tuple[str, Any]] = [("#", schema)]
    seen: set[int] = set()
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen.add(id(node))
        if len(seen) > MAX_SCHEMAS:
            raise invalid(f"has more than {MAX_SCHEMAS:,} subschemas")
        yield path, node
        if (place := place_of(node)) is not None:
            with suppress(LookupError, TypeError, ValueError):  # an error of its own follows
                waiting.append((place, resolved(schema, place)))
        waiting += [(pointer(path, *keys), each) for keys, each in subschemas(node)]


def _check_draft(schema: Schema) -> None:
    declared = schema.get("$schema", "")
    if not isinstance(declared, str):
        raise invalid(f"is wrong at '#/$schema': it must be text, got {kind_of(declared)}")
    try:
        draft_of(schema)
    except LookupError:
        known = f"known are {', '.join(DRAFTS)}"
        raise invalid(f"is of the draft {shown(declared)}; {known}") from None


def _check_node(path: str, node: Schema, references: References) -> None:
    constants = node.get("enum")
    if isinstance(constants, list) and len(constants) > MAX_ENUM:
        raise invalid(
            f"has an enum of {len(constants):,} values at {shown(path)}; the limit is {MAX_ENUM:,}"
        )
    reference = node.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#") and "://" in reference:
        raise invalid(
            f"refers to {shown(reference)} at {shown(path)}, and nothing is downloaded: put the "
            "schema in $defs",
            ref=reference,
        )
    try:
        found = list(references.targets(node))
    except (LookupError, TypeError, ValueError) as error:
        raise invalid(
            f"refers to {shown(reference)} at {shown(path)}, where nothing is", ref=reference
        ) from error
    if not all(isinstance(each, dict | bool) for each in found):
        raise invalid(
            f"refers to {shown(reference)} at {shown(path)}, where no schema is", ref=reference
        )


def _check_finite(root: Schema, nodes: dict[str, Schema]) -> None:
    """Refuse a schema that demands a value inside itself without end.

    A schema is finite if all that it demands is finite, and one of each list of alternatives. The
    schemas that are found so, starting from those that demand nothing, are the finite ones. Those
    whose limits contradict each other are never found.
    """
    unique = {id(node): node for node in nodes.values()}
    needed: dict[object, int] = {}
    dependents: dict[object, list[object]] = {}

    def inner_of(who: object, what: list[Any]) -> list[int]:
        inner = [id(each) for each in what if id(each) in unique]
        for each in inner:
            dependents.setdefault(each, []).append(who)
        return inner

    for number, node in unique.items():
        demanding = effective(node, draft_of(root))
        needed[number] = len(inner_of(number, _demanded(root, demanding)))
        needed[number] += _contradiction(demanding) is not None
        for key in ("anyOf", "oneOf"):
            options = demanding.get(key)
            if _is_list(options):
                group = (number, key)
                needed[group] = int(len(inner_of(group, options)) == len(options))
                needed[number] += 1
                dependents.setdefault(group, []).append(number)
    finite = [who for who, count in needed.items() if count == 0]
    done = set(finite)
    while finite:
        for who in dependents.get(finite.pop(), ()):
            needed[who] -= 1
            if needed[who] <= 0 and who not in done:
                done.add(who)
                finite.append(who)
    if id(root) not in done:
        _refuse_contradiction({path: node for path, node in nodes.items() if id(node) not in done})
        endless = next(path for path, node in nodes.items() if id(node) not in done)
        raise invalid(
            f"can only be satisfied by an infinite value: {shown(endless)} demands itself again",
            at=endless,
        )


def _refuse_contradiction(nodes: dict[str, Schema]) -> None:
    """Name limits without a value between, if that is why nothing satisfies these schemas."""
    for path, node in nodes.items():
        if (limits := _contradiction(node)) is not None:
            low, high = (f"{name} is {shown(node[name])}" for name in limits)
            raise invalid(f"allows no value at {shown(path)}, where {low} and {high}", at=path)


def _contradiction(node: Schema) -> tuple[str, str] | None:
    """The limits of a schema, of the only kind that it allows, that no value keeps."""
    for kind, least, most in LIMITS:
        low, high = node.get(least), node.get(most)
        if _may_be(node, kind) and _is_number(low) and _is_number(high) and low > high:
            return least, most
    return None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_work(root: Schema, nodes: dict[str, Schema], references: References) -> None:
    """Refuse a schema that a value is checked against without end, or again and again."""
    draft = draft_of(root)
    children: dict[int, list[int]] = {}
    for node in nodes.values():
        within = subschemas(effective(node, draft))
        same = (each for keys, each in within if keys[0] in IN_PLACE)
        found = (*references.targets(node), *same)
        children[id(node)] = [id(each) for each in found if isinstance(each, dict)]
    counts: dict[int, int] = {}
    try:
        for number in TopologicalSorter(children).static_order():  # children come first
            counts[number] = 1 + sum(counts[child] for child in children[number])
            if counts[number] > MAX_CHECKS:
                raise invalid(f"asks for more than {MAX_CHECKS:,} checks of one value")
    except CycleError as error:
        circle = error.args[1]
        place = next(path for path, node in nodes.items() if id(node) in circle)
        raise invalid(
            f"leads at {shown(place)} back to itself for the same value, so that no check of it "
            "would end: references may do so in properties and items only",
            at=place,
        ) from None


def _demanded(root: Schema, node: Schema) -> list[Any]:
    """The schemas that every value of a schema, or a part of it, has to satisfy."""
    demanded = list(node["allOf"]) if _is_list(node.get("allOf")) else []
    if (place := place_of(node)) is not None:
        demanded.append(resolved(root, place))
    if _may_be(node, "object"):
        demanded += _demanded_properties(node)
    if _may_be(node, "array"):
        demanded += _demanded_items(node)
    return demanded


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and bool(value)


def _may_be(node: Schema, kind: str) -> bool:
    """Whether values of the schema have to be of this kind."""
    return node.get("type") in (kind, [kind])


def _demanded_properties(node: Schema) -> Iterator[Any]:
    properties, required = node.get("properties"), node.get("required")
    if isinstance(properties, dict) and isinstance(required, list):
        yield from (properties[name] for name in required if name in properties)


def _demanded_items(node: Schema) -> Iterator[Any]:
    least = node.get("minItems")
    if not isinstance(least, int) or least < 1:
        return
    places, items = node.get("prefixItems"), node.get("items")
    if isinstance(items, list):
        places, items = items, node.get("additionalItems")
    first = places if isinstance(places, list) else []
    yield from first[:least]
    if least > len(first) and isinstance(items, dict):
        yield items
