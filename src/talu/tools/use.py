"""Defines the arguments that say which tools a model may call, and how talu carries them out."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeGuard, cast

from talu.checks import check_boolean
from talu.config import GenerationSettings
from talu.error_text import nearest, shown
from talu.exceptions import ValidationError
from talu.first_use import loaded
from talu.tools.calls import ToolCall
from talu.types import is_iterable

if TYPE_CHECKING:
    from talu.tools.definition import Tool, ToolSource

__all__ = ["Approve", "CallSettings", "ToolSettings", "ToolUse", "by_name", "is_source"]

MAX_ROUNDS = 1_000
MAX_TOOLS = 1_000

Approval = bool | str | None
Approve = Callable[[ToolCall], Approval | Awaitable[Approval]]


class ToolSettings(TypedDict, total=False):
    """The arguments of a call that are about tools; see ``ToolUse``."""

    tools: "Iterable[Callable[..., Any] | Tool | ToolSource | Mapping[str, Any]] | None"
    tool_choice: str | None
    parallel_tool_calls: bool | None
    max_rounds: int | None
    approve: Approve | None


class CallSettings(GenerationSettings, ToolSettings, total=False):
    """All keywords of a call that are not named in its signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """The tools of a call, and how they are used; None for what is not given.

    Attributes:
        tools: functions, tools, sources of tools and definitions.
        tool_choice: ``"auto"``, ``"none"``, ``"required"``, or the name of a tool. It is for the
            first request; the model is free in those that follow the results.
        parallel_tool_calls: False for at most one call in an answer.
        max_rounds: the most requests to the model (1). The calls of the last answer stay open.
        approve: asked before each call: True carries it out, False or a text, the reason, refuses
            it, and None leaves it open.
    """

    tools: "tuple[Tool | ToolSource, ...] | None" = None
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    max_rounds: int | None = None
    approve: Approve | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any], *, allow_async: bool) -> tuple[Self, dict[str, Any]]:
        """The use that keywords describe, checked, and the other keywords.

        Args:
            settings: the keywords of a call.
            allow_async: ``approve`` may be async.

        Raises:
            ValidationError: a value is wrong, or two tools have the same name.
        """
        names = {field.name for field in fields(cls)}
        given = {n: value for n, value in settings.items() if n in names and value is not None}
        rest = {name: value for name, value in settings.items() if name not in names}
        if not given:
            return cls(), rest
        if "tools" in given:
            given["tools"] = _tools(given["tools"])
        if "parallel_tool_calls" in given:
            check_boolean("parallel_tool_calls", given["parallel_tool_calls"])
        if "max_rounds" in given:
            _check_rounds(given["max_rounds"])
        if "approve" in given:
            _check_approve(given["approve"], allow_async=allow_async)
        if not isinstance(given.get("tool_choice", ""), str):
            raise _wrong(
                "tool_choice",
                "'auto', 'none', 'required' or the name of a tool",
                given["tool_choice"],
            )
        return cls(**given), rest

    def over(self, defaults: "ToolUse") -> "ToolUse":
        """This use, with the defaults for what is not given; all are for tools."""
        if self.tools == ():
            return self
        given: dict[str, Any] = {**self.given()}
        return replace(defaults, **given)

    def given(self) -> ToolSettings:
        """What is given, as keywords."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return cast("ToolSettings", {n: v for n, v in values.items() if v is not None})

    def check(self) -> None:
        """Check what belongs together.

        Raises:
            ValidationError: an argument needs tools, or ``approve`` needs rounds.
        """
        if not self.tools:
            for name in self.given():
                if name != "tools":
                    wrong = f"{name} needs tools: give tools=[…], or leave it out"
                    raise ValidationError(wrong, details={"param": name})
            return
        if self.approve is not None and self.rounds == 1:
            raise ValidationError(
                "approve needs max_rounds of at least 2: with 1, the default, no call is carried "
                "out, and all are in tool_calls",
                details={"param": "approve"},
            )
        if len(self.described) == len(self.tools):
            self.check_choice(self.described)

    def check_choice(self, tools: "Mapping[str, Tool]") -> None:
        """``ValidationError`` if ``tool_choice`` is not a choice among these tools."""
        choice = self.tool_choice
        if choice is None or choice in ("auto", "none", "required") or choice in tools:
            return
        known = ("auto", "none", "required", *tools)
        wrong = f"tool_choice must be one of {', '.join(known)}, got {shown(choice)}"
        raise ValidationError(
            wrong + nearest(choice, known), details={"param": "tool_choice", "value": choice}
        )

    @property
    def described(self) -> "dict[str, Tool]":
        """The tools that are known without opening a source."""
        return by_name(tool for tool in self.tools or () if not is_source(tool))

    @property
    def rounds(self) -> int:
        """The most requests to the model."""
        return 1 if self.max_rounds is None else self.max_rounds


def is_source(entry: "Tool | ToolSource") -> "TypeGuard[ToolSource]":
    """Whether this is a source of several tools, and no tool; neither has to be imported."""
    return hasattr(type(entry), "aopen")


def by_name(tools: "Iterable[Any]") -> "dict[str, Tool]":
    """The tools by their names; ``ValidationError`` if two have the same."""
    found: dict[str, Tool] = {}
    for tool in tools:
        if tool.name in found:
            raise ValidationError(
                f"two tools are called {tool.name!r}: rename one of them, as in "
                "@tool(name='another')",
                details={"param": "tools", "tool": tool.name},
            )
        found[tool.name] = tool
    if len(found) > MAX_TOOLS:
        wrong = f"a request has at most {MAX_TOOLS:,} tools, got {len(found):,}"
        raise ValidationError(wrong, details={"param": "tools"})
    return found


def _tools(entries: Any) -> "tuple[Tool | ToolSource, ...]":
    if isinstance(entries, str | bytes | Mapping) or not is_iterable(entries):
        raise _wrong("tools", "a list of functions, tools or definitions", entries)
    as_tool = loaded("talu.tools.functions", "as_tool")
    source = loaded("talu.tools.definition", "ToolSource")
    found = tuple(
        entry if isinstance(entry, source) and not isinstance(entry, type) else as_tool(entry)
        for entry in entries
    )
    by_name(entry for entry in found if not is_source(entry))
    return found


def _check_rounds(rounds: object) -> None:
    is_whole = isinstance(rounds, int) and not isinstance(rounds, bool)
    if not is_whole or rounds not in range(1, MAX_ROUNDS + 1):
        raise _wrong("max_rounds", f"a whole number from 1 to {MAX_ROUNDS:,}", rounds)


def _check_approve(approve: object, *, allow_async: bool) -> None:
    if not callable(approve):
        raise _wrong("approve", "a function of one call", approve)
    is_async = any(map(inspect.iscoroutinefunction, (approve, type(approve).__call__)))
    if is_async and not allow_async:
        wrong = f"{shown(approve)} is async: give it to AsyncClient, or make it a plain function"
        raise ValidationError(wrong, details={"param": "approve"})


def _wrong(name: str, expected: str, value: object) -> ValidationError:
    wrong = f"{name} must be {expected}, got {shown(value)}"
    return ValidationError(wrong, details={"param": name, "value": value})
