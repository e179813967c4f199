"""Reads schemas in a short form for the command line: ``name, age int, bio: a short text``."""

import re
from typing import Any

from talu.structured.schema_checks import invalid

__all__ = ["concise_schema"]

KINDS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
FIELD = re.compile(r"(?P<name>\w+)(?:\s+(?P<kind>\w+))?(?P<many>\[\])?(?:\s*:\s*(?P<about>.*))?")


def concise_schema(text: str) -> dict[str, Any]:
    """The schema of an object with these fields, all of which are required.

    Args:
        text: fields, separated by commas or on lines of their own: a name, a type if it is not
            text (``int``, ``float``, ``bool``; ``[]`` after it for a list), and a description
            after a colon.

    Raises:
        StructuredOutputError: a field is malformed.
    """
    separator = "\n" if "\n" in text.strip() else ","
    properties: dict[str, Any] = {}
    for part in filter(None, map(str.strip, text.split(separator))):
        field = FIELD.fullmatch(part)
        kind = field["kind"] or "str" if field else ""
        if field is None or kind not in KINDS or field["name"] in properties:
            known = ", ".join(KINDS)
            raise invalid(
                f"has the field {part!r:.100}; a field is a new name, perhaps one of the types "
                f"{known}, and perhaps a description after a colon"
            )
        schema: dict[str, Any] = {"type": KINDS[kind]}
        if field["many"]:
            schema = {"type": "array", "items": schema}
        if field["about"]:
            schema["description"] = field["about"]
        properties[field["name"]] = schema
    if not properties:
        raise invalid("has no field")
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
