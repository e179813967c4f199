"""Describes and reads the types that pydantic checks, without importing pydantic.

Whoever has such a type has imported it.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, TypeGuard

__all__ = ["is_model", "is_pydantic", "pydantic_instance", "pydantic_schema"]


def is_model(kind: object) -> TypeGuard[Any]:
    """Whether this is a pydantic model."""
    if not isinstance(kind, type):
        return False
    return hasattr(kind, "model_json_schema") and hasattr(kind, "model_validate")


def is_pydantic(kind: object) -> TypeGuard[Any]:
    """Whether this is a pydantic model or a pydantic dataclass."""
    return is_model(kind) or (isinstance(kind, type) and "__pydantic_validator__" in vars(kind))


def pydantic_schema(kind: Any) -> dict[str, Any]:
    """The JSON Schema of such a type, with its parts in ``$defs``.

    Raises:
        ValueError: it has none, or one whose values the type does not read.
    """
    template = "#/$defs/{model}"
    try:
        if is_model(kind):
            schema = kind.model_json_schema(ref_template=template)
        else:
            schema = _adapter(kind).json_schema(ref_template=template)
    except Exception as error:  # of pydantic, which is not imported here
        raise ValueError(f"pydantic says: {error}") from error
    for name, alias in _aliases(_adapter(kind).core_schema):
        if isinstance(alias, list) and not any(len(path) == 1 for path in _paths(alias)):
            raise ValueError(f"the alias of {name!r} is a path, which has no place in the schema")
    return dict(schema)


def pydantic_instance(kind: Any, value: object) -> object:
    """The instance that a JSON value describes; pydantic takes dates and sets from JSON only.

    Raises:
        ValueError: pydantic refuses it.
    """
    text = json.dumps(value)
    instance: object = (
        kind.model_validate_json(text) if is_model(kind) else _adapter(kind).validate_json(text)
    )
    return instance


def _adapter(kind: Any) -> Any:
    return sys.modules["pydantic"].TypeAdapter(kind)


def _aliases(core: object) -> Iterator[tuple[str, object]]:
    """The names of the fields in a description of pydantic, and what they are read from."""
    waiting: list[tuple[Any, object]] = [("", core)]
    while waiting:
        key, node = waiting.pop()
        if isinstance(node, list | tuple):
            waiting += [(key, each) for each in node]
        elif isinstance(node, dict):
            if "validation_alias" in node:
                yield node.get("name", key), node["validation_alias"]
            waiting += node.items()


def _paths(alias: list[Any]) -> list[list[Any]]:
    """The paths of an alias, which is one or several."""
    return alias if all(isinstance(each, list) for each in alias) else [alias]
