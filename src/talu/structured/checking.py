"""Checks JSON values with the ``jsonschema`` package, which nothing else imports."""

import json
import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cache, partial
from typing import Any, Protocol

import jsonschema
from jsonschema import FormatChecker, validators
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from talu.error_text import shown
from talu.structured.keywords import Draft, draft_of, pointer
from talu.structured.matching import contains
from talu.structured.references import reachable, targets_of
from talu.structured.schema_checks import invalid
from talu.structured.string_formats import CHECKED_FORMATS, conforms

__all__ = ["Checker", "checker"]

KINDS: dict[Draft, Any] = {
    "4": jsonschema.Draft4Validator,
    "6": jsonschema.Draft6Validator,
    "7": jsonschema.Draft7Validator,
    "2019-09": jsonschema.Draft201909Validator,
    "2020-12": jsonschema.Draft202012Validator,
}
BY_JSONSCHEMA = ("ipv4", "ipv6", "uuid")  # formats that need no other package


class Checker(Protocol):
    """Checks values against a schema."""

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, and where; None if it fits."""


def checker(schema: dict[str, Any]) -> Checker:
    """A checker for a schema.

    Raises:
        StructuredOutputError: the schema is not valid by its draft.
    """
    return _Checker(schema)


def _pattern(
    validator: Any, pattern: str, instance: object, schema: object
) -> Iterator[jsonschema.ValidationError]:
    """The check of ``pattern``; nobody waits for an expression that backtracks."""
    if isinstance(instance, str) and not contains(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r:.200} does not match {pattern!r:.200}")


def _multiple_of(
    validator: Any, divisor: float, instance: object, schema: object
) -> Iterator[jsonschema.ValidationError]:
    """The check of ``multipleOf`` in decimal: 14.7 is a multiple of 0.1."""
    if not isinstance(instance, int | float) or isinstance(instance, bool):
        return
    if not math.isfinite(instance) or Fraction(repr(instance)) % Fraction(repr(divisor)):
        yield jsonschema.ValidationError(f"{instance!r} is not a multiple of {divisor!r}")


def _dependencies(
    validator: Any, dependencies: dict[str, Any], instance: object, schema: object
) -> Iterator[jsonschema.ValidationError]:
    """The check of ``dependencies``, which newer drafts no longer have, and many schemas do."""
    if not isinstance(instance, dict):
        return
    for name in dependencies.keys() & instance.keys():
        if not isinstance(dependencies[name], list):
            yield from validator.descend(instance, dependencies[name], schema_path=name)
            continue
        for other in dependencies[name]:
            if other not in instance:
                yield jsonschema.ValidationError(f"{other!r} is a dependency of {name!r}")


OURS = {"dependencies": _dependencies, "multipleOf": _multiple_of, "pattern": _pattern}


def _undeclared(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without ``$schema``, wherever jsonschema would change to its own checks by it."""
    copy: dict[str, Any] = json.loads(json.dumps(schema))
    for node in reachable(copy).values():
        node.pop("$schema", None)
    return copy


@cache
def _formats() -> FormatChecker:
    found = FormatChecker(formats=BY_JSONSCHEMA)
    for name in CHECKED_FORMATS.difference(BY_JSONSCHEMA):
        found.checks(name)(partial(_has_format, name))
    return found


def _has_format(name: str, instance: object) -> bool:
    return not isinstance(instance, str) or conforms(name, instance)


def _check(kind: Any, place: str, schema: object) -> None:
    """Refuse a schema that is wrong by its draft."""
    try:
        kind.check_schema(schema, format_checker=_formats())
    except SchemaError as error:
        place = pointer(place, *error.absolute_path)
        raise invalid(f"is wrong at {shown(place)}: {error.message[:300]}", at=place) from error


class _Checker:
    def __init__(self, schema: dict[str, Any]) -> None:
        kind = KINDS[draft_of(schema)]
        _check(kind, "#", schema)
        for reference, node in targets_of(schema).items():  # also where no keyword has a schema
            _check(kind, reference, node)
        # An empty registry: the default one downloads what a schema refers to.
        registry: Registry[Any] = EMPTY_REGISTRY
        extend: Any = validators.extend  # it has no types
        ours = extend(kind, OURS)
        self._validator = ours(_undeclared(schema), registry=registry, format_checker=_formats())

    def problem(self, value: Any) -> str | None:
        try:
            error = jsonschema.exceptions.best_match(self._validator.iter_errors(value))
        except Unresolvable as missing:
            raise invalid(f"refers to {missing.ref!r}, where nothing is") from missing
        except BaseException as error:
            is_panic = type(error).__name__ == "PanicException"  # of Rust, too deep
            if not is_panic and not isinstance(error, RecursionError):
                raise
            return "the value, or the schema, is nested too deeply to be checked"
        if error is None:
            return None
        return f"{pointer('#', *error.absolute_path)}: {error.message[:500]}"
