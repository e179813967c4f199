"""Writes the result of a call as text for the model."""

import dataclasses
import json
from datetime import date, time
from enum import Enum
from typing import Any
from uuid import UUID

from talu.error_text import shortened, shown
from talu.exceptions import ToolExecutionError
from talu.structured.pydantic_types import is_model
from talu.tools.calls import ToolCall

__all__ = ["described_error", "result_text"]

MAX_RESULT = 1_000_000  # characters
MAX_DEPTH = 100  # of a result


def result_text(value: object, call: ToolCall | None = None) -> str:
    """The text of a result for the model: a text as it is, anything else as JSON.

    Dataclasses, pydantic models, enums, dates, sets and tuples are written as their plain forms.

    Raises:
        ToolExecutionError: it has no JSON form, or more than 1,000,000 characters.
    """
    what = "the result" if call is None else f"the result of the tool {call.name!r}"
    try:
        text = str.__str__(value) if isinstance(value, str) else _json(value)
        if len(text) > MAX_RESULT:
            raise _TooLong
        text.encode()
    except _TooLong:
        raise _invalid(f"{what} has more than {MAX_RESULT:,} characters", call) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise _invalid(f"{what} has no JSON form: {error}", call) from error
    except Exception as error:  # of a class of the user
        raise _invalid(f"{what} has no JSON form: {described_error(error)}", call) from error
    return text


def described_error(error: BaseException) -> str:
    """An error as text; also one whose own text cannot be made."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - of a class of the user
        text = f"{type(error).__name__}, whose text cannot be made"
    return shortened(text.encode("utf-8", "backslashreplace").decode())


class _TooLong(Exception):
    """A result has more characters than the model can be given."""


def _invalid(problem: str, call: ToolCall | None) -> ToolExecutionError:
    about = {} if call is None else {"tool": call.name, "call_id": call.id}
    return ToolExecutionError(problem, "TOOL_RESULT_INVALID", about)


def _json(value: object) -> str:
    return json.dumps(_Plain().of(value), ensure_ascii=False, allow_nan=False)


class _Plain:
    """Makes values of JSON's own types, as long as their text is not too long."""

    def __init__(self) -> None:
        self._left = MAX_RESULT  # characters

    def of(self, value: Any, depth: int = 0) -> Any:
        """The value in JSON's own types."""
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        self._count(1)
        match value:
            case Enum():
                return self.of(value.value, depth + 1)
            case str():
                self._count(len(value))
                return value
            case None | bool() | int() | float():
                return value
            case date() | time():
                return value.isoformat()
            case UUID():
                return str(value)
            case dict():
                if not all(isinstance(key, str) for key in value):
                    raise TypeError(f"a key of an object is not text: {shown(list(value))}")
                self._count(sum(map(len, value)))
                return {key: self.of(each, depth + 1) for key, each in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self.of(each, depth + 1) for each in value]
        if is_model(type(value)):
            return value.model_dump(mode="json")
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            return {name: self.of(getattr(value, name), depth + 1) for name in names}
        raise TypeError(f"{shown(value)} is of the type {type(value).__name__}")

    def _count(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise _TooLong
