"""The base of the bodies of requests, and what is told about one that is not valid."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from talu.error_text import shown
from talu.server.failures import Failure, invalid

__all__ = ["MAX_MESSAGES", "Body", "body_failure", "without_unset"]

MAX_MESSAGES = 10_000  # of a conversation, or items
FIELD_UNKNOWN = "extra_forbidden"  # pydantic's name


class Body(BaseModel):
    """An object in the body of a request: a field that is not known here is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


def without_unset(body: Body) -> dict[str, Any]:
    """The fields that the client has set to a value, by the names in the JSON."""
    return body.model_dump(by_alias=True, exclude_none=True)


def body_failure(errors: Sequence[Mapping[str, Any]], body: Any) -> Failure:
    """What is wrong with a body.

    Of the errors of several alternatives, the one that lies deepest is about the alternative that
    was meant, and a wrong value says more than a missing one.

    Args:
        errors: those of pydantic.
        body: what was sent.
    """
    if any(error["type"] == "json_invalid" for error in errors):
        why = errors[0].get("ctx", {}).get("error", "")
        return Failure(400, "INVALID_JSON", f"the body is not JSON: {why}")
    error = max(errors, key=lambda each: (len(_place(each, body)), each["type"] != "missing"))
    place = _place(error, body)
    param = _written(place)
    if error["type"] == FIELD_UNKNOWN:
        text = f"{param} is not supported"
    elif error["type"] == "missing":
        text = f"{param} is missing" if place else "the body is missing"
    else:
        given = error.get("input")
        got = "" if isinstance(given, dict | list) else f", got {shown(given)}"
        text = f"{param or 'the body'}: {error['msg']}{got}"
    return invalid(param or None, text)


def _place(error: Mapping[str, Any], body: Any) -> list[str | int]:
    """Where in the body an error lies, without pydantic's names of alternatives."""
    steps = list(error["loc"])
    if steps and steps[0] == "body":
        steps = steps[1:]
    place: list[str | int] = []
    value = body
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        if isinstance(value, dict) and (step in value or (last and error["type"] == "missing")):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            continue
        place.append(step)
    return place


def _written(place: Sequence[str | int]) -> str:
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in place]
    return "".join(parts).removeprefix(".")
