"""Refuses JSON Schemas that are too large, refer to nothing, or that no finite value satisfies."""

import json
from collections.abc import Iterator
from typing import Any, TypeGuard

from talu.error_text import kind_of, shown
from talu.exceptions import StructuredOutputError
from talu.structured.keywords import pointer, resolved, subschemas

__all__ = ["checked_text", "invalid"]

MAX_SIZE = 512 * 1024  # characters as JSON
MAX_DEPTH = 64  # nested objects and arrays of the schema
MAX_ENUM = 10_000  # constants of one enum
MAX_SCHEMAS = 20_000  # schemas in the schema
MAX_CHECKS = 100_000  # of one value; references may double them again and again
IN_PLACE = ("allOf", "anyOf", "dependentSchemas", "else", "if", "not", "oneOf", "then")

Schema = dict[str, Any]


def checked_text(schema: object) -> str:
    """The schema as compact JSON.

    Raises:
        StructuredOutputError: it is not plain JSON, exceeds a limit, has a reference that leads
            nowhere or outside, or only infinite values could satisfy it.
    """
    if not isinstance(schema, dict):
        raise invalid(f"must be an object, got {kind_of(schema)}")
    _check_depth(schema)
    try:
        text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid(f"is not plain JSON: {error}") from error
    if len(text) > MAX_SIZE:
        raise invalid(f"has {len(text):,} characters as JSON; the limit is {MAX_SIZE:,}")
    nodes = dict(_nodes(schema))
    for path, node in nodes.items():
        _check_node(schema, path, node)
    _check_finite(schema, nodes)
    _check_work(schema)
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
    """All schemas in a schema, by their pointers."""
    waiting: list[tuple[str, Any]] = [("#", schema)]
    count = 0
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, dict):
            continue
        count += 1
        if count > MAX_SCHEMAS:
            raise invalid(f"has more than {MAX_SCHEMAS:,} subschemas")
        yield path, node
        waiting += [(pointer(path, *keys), each) for keys, each in subschemas(node)]


def _check_node(root: Schema, path: str, node: Schema) -> None:
    constants = node.get("enum")
    if isinstance(constants, list) and len(constants) > MAX_ENUM:
        raise invalid(
            f"has an enum of {len(constants):,} values at {shown(path)}; the limit is {MAX_ENUM:,}"
        )
    reference = node.get("$ref")
    if not isinstance(reference, str):
        return
    if not reference.startswith("#"):
        if "://" in reference:
            raise invalid(
                f"refers to {shown(reference)} at {shown(path)}, and nothing is downloaded: put "
                "the schema in $defs",
                ref=reference,
            )
        return
    if reference == "#" or reference.startswith("#/"):
        try:
            resolved(root, reference)
        except (LookupError, TypeError, ValueError) as error:
            raise invalid(
                f"refers to {shown(reference)} at {shown(path)}, where nothing is", ref=reference
            ) from error


def _check_finite(root: Schema, nodes: dict[str, Schema]) -> None:
    """Refuse a schema that demands a value inside itself without end.

    A schema is finite if all that it demands is finite, and one of each list of alternatives. The
    schemas that are found so, starting from those that demand nothing, are the finite ones.
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
        needed[number] = len(inner_of(number, _demanded(root, node)))
        for key in ("anyOf", "oneOf"):
            options = node.get(key)
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
        endless = next(path for path, node in nodes.items() if id(node) not in done)
        raise invalid(
            f"can only be satisfied by an infinite value: {shown(endless)} demands itself again",
            at=endless,
        )


def _check_work(root: Schema) -> None:
    """Refuse a schema whose references double the checks of a value again and again."""
    counts: dict[int, int] = {}
    waiting: list[tuple[Schema, bool]] = [(root, False)]
    entered: set[int] = set()
    while waiting:
        node, is_last = waiting.pop()
        children = [each for each in _in_place(root, node) if isinstance(each, dict)]
        if is_last:  # a child without a count is being visited: it contains itself
            counts[id(node)] = 1 + sum(counts.get(id(child), 1) for child in children)
            if counts[id(node)] > MAX_CHECKS:
                raise invalid(f"asks for more than {MAX_CHECKS:,} checks of one value")
        elif id(node) not in entered:
            entered.add(id(node))
            waiting.append((node, True))
            waiting += [(each, False) for each in (*children, *_elsewhere(node))]


def _in_place(root: Schema, node: Schema) -> Iterator[Any]:
    """The schemas that the same value is checked against."""
    reference = node.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        yield resolved(root, reference)
    for keys, each in subschemas(node):
        if keys[0] in IN_PLACE:
            yield each


def _elsewhere(node: Schema) -> Iterator[Schema]:
    for keys, each in subschemas(node):
        if keys[0] not in IN_PLACE and isinstance(each, dict):
            yield each


def _demanded(root: Schema, node: Schema) -> list[Any]:
    """The schemas that every value of a schema, or a part of it, has to satisfy."""
    demanded = list(node["allOf"]) if _is_list(node.get("allOf")) else []
    reference = node.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        demanded.append(resolved(root, reference))
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
