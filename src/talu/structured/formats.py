"""Turns the value of ``response_format=`` into one description, and reads answers by it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from types import GenericAlias, UnionType
from typing import Any, Literal, get_origin

from talu.error_text import shown
from talu.exceptions import (
    IncompleteJSONError,
    SchemaValidationError,
    StructuredOutputError,
    ValidationError,
)
from talu.first_use import loaded
from talu.structured.instances import instance_of
from talu.structured.json_reading import json_value
from talu.structured.partial import NOTHING, is_cut, partial_value
from talu.structured.plain_schemas import is_plainly_valid
from talu.structured.report import SchemaReport, checked_report
from talu.structured.schema_checks import checked_text, invalid
from talu.structured.type_schemas import FORMATS, SCALARS, is_described, schema_of
from talu.structured.values import Choice, Grammar, Regex

__all__ = ["Kind", "ResponseFormat", "format_of"]

Kind = Literal["json", "regex", "choice", "lark", "gbnf"]
MATCHING = "talu.structured.matching"
DIGITS = frozenset("0123456789")  # the last character of a number
PLAIN = object()  # a JSON Schema: its values stay as they are
EXPECTED = (
    "a pydantic model, a dataclass, a TypedDict, a JSON Schema (dict), Regex(...), Choice([...]) "
    "or Grammar(...)"
)


@dataclass(frozen=True, repr=False)
class ResponseFormat:
    """The form that an answer must have, as ``GenerationConfig.response_format`` holds it.

    Attributes:
        kind: ``"json"``, ``"regex"``, ``"choice"``, ``"lark"`` or ``"gbnf"``.
        source: the JSON Schema, the regular expression, the options as JSON, or the grammar.
        given: the value of ``response_format=``; for a JSON Schema the text of it.
    """

    kind: Kind
    source: str
    given: Any
    _type: Any = field(default=PLAIN, compare=False)

    @cached_property
    def schema(self) -> dict[str, Any] | None:
        """The JSON Schema; None for a form that is no JSON."""
        if self.kind != "json":
            return None
        schema: dict[str, Any] = json.loads(self.source)
        return schema

    @cached_property
    def options(self) -> tuple[str, ...]:
        """The texts of a choice; empty for any other form."""
        return tuple(json.loads(self.source)) if self.kind == "choice" else ()

    @property
    def name(self) -> str:
        """A name for servers that want one: letters, digits, ``_`` and ``-``, at most 64."""
        title = self.schema.get("title") if self.schema is not None else None
        name = getattr(self._type, "__name__", None) or title or "answer"
        return re.sub(r"[^A-Za-z0-9_-]", "_", str(name))[:64] or "answer"

    def __repr__(self) -> str:
        given = self.source if self._type is PLAIN and self.kind == "json" else self.given
        return f"ResponseFormat({given!r:.100})"

    def check(self) -> None:
        """Refuse a JSON Schema that its draft does not allow, and a wrong regular expression.

        May take milliseconds.

        Raises:
            StructuredOutputError: it is wrong.
        """
        if self.schema is not None and not is_plainly_valid(self.schema):
            assert self._checker
        elif self.kind == "regex":
            problem = loaded(MATCHING, "regex_problem")(self.source)
            if problem is not None:
                raise StructuredOutputError(
                    f"the regular expression of response_format is wrong: {problem}",
                    details={"param": "response_format", "problem": problem},
                )

    @cached_property
    def _checker(self) -> Any:
        return loaded("talu.structured.checking", "checker")(self.schema)

    @cached_property
    def is_checkable(self) -> bool:
        """Whether an answer can be checked; some grammars need the tokens of a model."""
        if self.kind not in ("gbnf", "lark"):
            return True
        return loaded(MATCHING, "match_of_grammar")(self.kind, self.source, "") is not None

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("kind", "source", "given", "_type")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, PLAIN if value is None and name == "_type" else value)

    def read(self, text: str, finish_reason: str | None = None) -> Any:
        """The value of an answer.

        Args:
            text: the answer.
            finish_reason: why it ended, for errors.

        Raises:
            IncompleteJSONError: it ended before its value did.
            SchemaValidationError: it does not fit.
        """
        if self.kind == "json":
            return self._read_json(text, finish_reason)
        return self._read_text(text, finish_reason)

    def partial(self, text: str, *, ended: bool = False) -> Any:
        """What is known of the value of an answer that is being generated; None for nothing.

        Args:
            text: the answer so far.
            ended: no more text can follow, so that a number at the end is complete.
        """
        if self.kind != "json":
            return text or None
        try:
            value = partial_value(text, ended=ended)
        except (ValueError, RecursionError):
            return None
        return None if value is NOTHING else value

    def _read_json(self, text: str, finish_reason: str | None) -> Any:
        try:
            value = json_value(text)
        except (ValueError, RecursionError) as error:
            if finish_reason != "stop" and is_cut(text):
                raise IncompleteJSONError(text, finish_reason) from error
            raise SchemaValidationError(text, f"it is not JSON: {error}") from error
        if text[-1:] in DIGITS:  # a number: any other value shows where it ends
            match = loaded(MATCHING, "match_of_schema")(self.schema, text.lstrip())
            self._refuse_beginning(text, finish_reason, may_go_on=match is None or match.may_go_on)
        problem = self._checker.problem(value)
        if problem is not None:
            raise SchemaValidationError(text, problem, value)
        if self._type is PLAIN:
            return value
        try:
            return instance_of(self._type, value)
        except (ValueError, TypeError) as error:
            raise SchemaValidationError(text, str(error), value) from error

    def _read_text(self, text: str, finish_reason: str | None) -> Any:
        if self.kind == "choice":
            if text not in self.options:
                self._refuse(text, finish_reason, "it is none of the options")
            longer = any(each != text and each.startswith(text) for each in self.options)
            self._refuse_beginning(text, finish_reason, may_go_on=longer)
            members = self.given.members
            return members[self.options.index(text)] if members else text
        if self.kind == "regex":
            match = loaded(MATCHING, "match_of_regex")(self.source, text)
            problem = "it does not match the regular expression"
        else:
            match = loaded(MATCHING, "match_of_grammar")(self.kind, self.source, text)
            problem = "it is no text of the grammar"
        if match is not None and not match.whole:
            self._refuse(text, finish_reason, problem)
        self._refuse_beginning(text, finish_reason, may_go_on=match is None or match.may_go_on)
        return text

    def _refuse(self, text: str, finish_reason: str | None, problem: str) -> None:
        self._refuse_beginning(text, finish_reason, may_go_on=True)
        raise SchemaValidationError(text, problem)

    def _refuse_beginning(self, text: str, finish_reason: str | None, *, may_go_on: bool) -> None:
        """Refuse an answer that was cut where it could have gone on."""
        if may_go_on and finish_reason not in (None, "stop"):
            raise IncompleteJSONError(text, finish_reason)

    def checked_report(
        self, asked: str | None = None, *, explained: str | None = None
    ) -> SchemaReport:
        """The report of an answer that nothing in this process has constrained.

        Args:
            asked: the provider that was asked to enforce the form; None for nobody.
            explained: how the prompt explains the form.
        """
        if not self.is_checkable:
            return SchemaReport((), (), ("#",), asked, explained)
        if self.schema is None:
            return SchemaReport((), ("#",), (), asked, explained)
        return checked_report(self.schema, asked, explained)

    def to_dict(self) -> dict[str, Any]:
        """The format as plain JSON, which ``response_format=`` takes back, without its type."""
        match self.kind:
            case "json":
                return {"json_schema": self.schema}
            case "regex":
                return {"regex": self.source}
            case "choice":
                return {"choice": list(self.options)}
        return {"grammar": self.source, "syntax": self.kind}


def format_of(value: object) -> ResponseFormat:
    """The description of a value of ``response_format=``.

    Raises:
        ValidationError: the value is of no known kind.
        StructuredOutputError: it cannot be described, or exceeds a limit.
    """
    match value:
        case ResponseFormat():
            return value
        case Regex():
            return ResponseFormat("regex", value.pattern, value)
        case Choice():
            return ResponseFormat("choice", json.dumps(value.options), value)
        case Grammar():
            return ResponseFormat(value.syntax, value.text, value)
        case Mapping():
            return _of_mapping(value)
        case type() if value in (Regex, Choice, Grammar):
            wrong = f"response_format is the class {value.__name__}: give {value.__name__}(…)"
            raise ValidationError(wrong, details={"param": "response_format"})
    if not _is_type(value):
        wrong = f"response_format must be {EXPECTED}, got {shown(value)}"
        raise ValidationError(wrong, details={"param": "response_format"})
    return ResponseFormat("json", checked_text(schema_of(value)), value, value)


def _of_mapping(value: Mapping[Any, Any]) -> ResponseFormat:
    match value:
        case {"json_schema": dict(schema), **rest} if not rest:
            value = schema
        case {"regex": str(pattern), **rest} if not rest:
            return format_of(Regex(pattern))
        case {"choice": list(options), **rest} if not rest:
            return format_of(Choice(options))
        case {"grammar": str(text), "syntax": str(syntax), **rest} if not rest:
            return format_of(Grammar(text, syntax))  # type: ignore[arg-type]  # it checks
        case {"type": "json_schema" | "json_object"} | {"schema": {}, "name": str()}:
            raise invalid(
                "is given in the form of a provider's request: give the schema itself, such as "
                "{'type': 'object', ...}"
            )
    text = checked_text(dict(value))
    return ResponseFormat("json", text, text)


def _is_type(value: object) -> bool:
    if isinstance(value, type) and not isinstance(value, GenericAlias):
        known = value in SCALARS or value in FORMATS or value in (list, dict)
        return known or is_described(value) or issubclass(value, Enum)
    return isinstance(value, UnionType) or get_origin(value) is not None
