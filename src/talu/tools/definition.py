"""Defines a tool, and sources of several tools."""

import copy
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from talu.error_text import kind_of, shown
from talu.exceptions import StructuredOutputError, ValidationError
from talu.first_use import loaded
from talu.structured.plain_schemas import is_plainly_valid
from talu.structured.schema_checks import checked_text
from talu.unicode import check_unicode

__all__ = ["CHOICES", "Tool", "ToolSource", "checked_seconds", "tool_error"]

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what the servers allow
CHOICES = ("auto", "none", "required")
MAX_DESCRIPTION = 100_000  # characters
MAX_TIMEOUT = 1_000_000.0  # seconds

Run = Callable[[dict[str, Any]], Any]


class Tool:
    """A function that a model can call, and its description for the model.

    Attributes:
        name: 1 to 64 letters, digits, ``_`` and ``-``.
        description: what it does, for the model; "" for no description.
        parameters: the JSON Schema of its arguments, which are an object.
        is_async: ``run`` returns an awaitable.
        timeout: maximum seconds of a call; None is no limit.
        needs_approval: a call waits for an approval before it is carried out.
        strict: whether a provider that can is asked to enforce ``parameters``; None if they are
            such as it enforces. Arguments are checked in any case.
    """

    def __init__(
        self,
        name: str,
        description: str,
        parameters: Mapping[str, Any],
        run: Run | None = None,
        *,
        is_async: bool | None = None,
        timeout: float | None = None,
        needs_approval: bool = False,
        strict: bool | None = None,
    ) -> None:
        """Describe a tool.

        Args:
            name: see the attributes; also the following arguments.
            description: as above.
            parameters: as above; it is copied.
            run: carries out a call. It takes the arguments as a dictionary of plain JSON values
                that fit ``parameters``, and returns a text, or a value that can be written as JSON;
                with ``is_async`` an awaitable of that. What it raises is reported to the model.
                None for a tool that is only described: somebody else carries out its calls.
            is_async: None for what ``run`` is declared as.
            timeout: as above.
            needs_approval: as above.
            strict: as above.

        Raises:
            ValidationError: an argument is wrong, or ``parameters`` is not a JSON Schema of an
                object, is wrong by its draft or too large, or can be satisfied by no finite value.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            wanted = "1 to 64 letters (A-Z, a-z), digits, _ and -"
            raise tool_error(f"the name of a tool must be {wanted}, got {shown(name)}")
        if name in CHOICES:
            raise tool_error(f"a tool cannot be called {name!r}, which is a value of tool_choice")
        if not isinstance(description, str) or len(description) > MAX_DESCRIPTION:
            wanted = f"text of at most {MAX_DESCRIPTION:,} characters"
            raise tool_error(f"the description of the tool {name!r} must be {wanted}")
        check_unicode("description", description)
        if run is not None and not callable(run):
            raise tool_error(f"run of the tool {name!r} must be a function, got {shown(run)}")
        self.name = name
        self.description = description
        self.parameters, self._checker = _checked(name, parameters)
        for option, flag in {"is_async": is_async, "strict": strict}.items():
            if flag is not None and not isinstance(flag, bool):
                wrong = f"{option} must be True, False or None, got {shown(flag)}"
                raise tool_error(f"{wrong} (of the tool {name!r})")
        self.is_async = inspect.iscoroutinefunction(run) if is_async is None else is_async
        self.timeout = checked_seconds(
            timeout, lambda problem: tool_error(f"timeout of the tool {name!r} {problem}")
        )
        if not isinstance(needs_approval, bool):
            wrong = f"needs_approval must be True or False, got {shown(needs_approval)}"
            raise tool_error(f"{wrong} (of the tool {name!r})")
        self.needs_approval = needs_approval
        self.strict = strict
        self._run = run

    @property
    def runs(self) -> bool:
        """Whether it can be run here; otherwise it is only described."""
        return self._run is not None

    @property
    def definition(self) -> dict[str, Any]:
        """The definition of the tool in OpenAI's form."""
        function: dict[str, Any] = {"name": self.name, "parameters": copy.deepcopy(self.parameters)}
        if self.description:
            function["description"] = self.description
        if self.strict is not None:
            function["strict"] = self.strict
        return {"type": "function", "function": function}

    def problem(self, arguments: object) -> str | None:
        """What is wrong with the arguments of a call; None if they fit ``parameters``."""
        if self._checker is None:
            self._checker = loaded("talu.structured.checking", "checker")(self.parameters)
        found: str | None = self._checker.problem(arguments)
        return found

    def run(self, arguments: dict[str, Any]) -> Any:
        """Carry out a call whose arguments fit ``parameters``; an awaitable if ``is_async``."""
        if self._run is None:
            raise tool_error(f"the tool {self.name!r} has no function: it is only described")
        return self._run(arguments)

    def __repr__(self) -> str:
        return f"Tool({self.name!r})"


@runtime_checkable
class ToolSource(Protocol):
    """An entry of ``tools=`` that gives several tools, such as the tools of a server.

    It is opened when a call needs its tools, and stays open until its ``close``, or until the
    client is closed. Opening an open source returns its tools again. Its methods may be called
    from any thread and any event loop, also at the same time. If it has ``notes``, sentences about
    the last opening, they are among those of the answer.
    """

    def open(self) -> Sequence[Tool]:
        """The tools; blocks while it connects."""

    async def aopen(self) -> Sequence[Tool]:
        """Like ``open``, awaited; never blocks the event loop."""

    def close(self) -> None:
        """Release what it holds; idempotent. It can be opened again."""


def tool_error(message: str, **details: object) -> ValidationError:
    """The error for a tool that is wrong."""
    return ValidationError(message, details={"param": "tools", **details})


def _checked(name: str, parameters: object) -> tuple[dict[str, Any], Any]:
    """A copy of a schema, and what checks values by it if that was needed to check the schema."""
    if not isinstance(parameters, Mapping):
        wrong = f"must be a JSON Schema (dict), got {kind_of(parameters)}"
        raise tool_error(f"the parameters of the tool {name!r} {wrong}")
    schema, checker = dict(parameters), None
    schema.setdefault("type", "object")
    try:
        schema = json.loads(checked_text(schema))
        if not is_plainly_valid(schema):
            checker = loaded("talu.structured.checking", "checker")(schema)
    except StructuredOutputError as error:
        problem = error.details.get("problem", error)
        wrong = f"the JSON Schema of the tool {name!r} {problem}"
        raise tool_error(wrong, tool=name) from error
    if schema["type"] != "object":
        wrong = f"must describe an object, got the type {shown(schema['type'])}"
        raise tool_error(f"the JSON Schema of the tool {name!r} {wrong}", tool=name)
    return schema, checker


def checked_seconds(timeout: object, wrong: Callable[[str], ValidationError]) -> float | None:
    """A limit of a call in seconds, None for none; ``wrong`` makes the error of another value."""
    if timeout is None:
        return None
    is_flag = isinstance(timeout, bool)
    if isinstance(timeout, int | float) and not is_flag and 0 < timeout <= MAX_TIMEOUT:
        return float(timeout)
    wanted = f"seconds above 0 and at most {MAX_TIMEOUT:,.0f}, or None for no limit"
    raise wrong(f"must be {wanted}, got {shown(timeout)}")
