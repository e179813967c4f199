"""Makes tools of functions: the signature and the docstring become the description."""

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar, get_type_hints, overload

from talu.error_text import shown
from talu.exceptions import StructuredOutputError, ToolExecutionError
from talu.structured.constraints import is_field
from talu.structured.instances import instance_of
from talu.structured.type_schemas import object_schema
from talu.tools.definition import Tool, tool_error
from talu.tools.docstrings import described

__all__ = ["as_tool", "tool"]

F = TypeVar("F", bound=Callable[..., Any])
OPTIONS = "__talu_tool__"  # attribute of a function that ``tool`` has marked
UNSUPPORTED = {
    inspect.Parameter.VAR_POSITIONAL: "takes any number of arguments (*{})",
    inspect.Parameter.VAR_KEYWORD: "takes any keywords (**{})",
    inspect.Parameter.POSITIONAL_ONLY: "has the parameter {!r}, which has no name for a caller",
}


class _Options(NamedTuple):
    name: str | None = None
    description: str | None = None
    timeout: float | None = None
    needs_approval: bool = False


@overload
def tool(function: F) -> F: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    needs_approval: bool = False,
) -> Callable[[F], F]: ...


def tool(
    function: F | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    needs_approval: bool = False,
) -> F | Callable[[F], F]:
    """Mark a function as a tool, with options; it stays the same function.

    A plain function in ``tools=`` is a tool as well. The name, the docstring and the annotated
    parameters become the description for the model. Parameters can be of the types that
    ``response_format`` takes, such as pydantic models and dataclasses; the function gets instances
    of them. A parameter with a default value may be left out by the model.

    A function is marked once. A ``functools.partial`` of it is another function, which can be
    marked as another tool; what it does not say is as its function is marked.

    Args:
        function: the function, which may be ``async``.
        name: replaces the function's name.
        description: replaces that of the docstring.
        timeout: maximum seconds of a call; None is no limit.
        needs_approval: a call waits for an approval before the function is called.

    Raises:
        ValidationError: a parameter has no annotation, or no JSON form, or the function is marked
            with other options.
    """
    options = _Options(name, description, timeout, needs_approval)

    def mark(function: F) -> F:
        if isinstance(function, type) or not callable(_origin(function)):
            raise tool_error(f"tool marks functions, got {shown(function)}")
        if getattr(function, OPTIONS, options) != options:
            raise tool_error(
                f"{_name(function)} is marked as a tool with other options: give all to one "
                "tool(…), or mark functools.partial(function) as another tool"
            )
        try:
            setattr(function, OPTIONS, options)
        except AttributeError:  # of a bound method, or one of C
            problem = "cannot be marked: mark functools.partial(function), or the method in its"
            raise tool_error(f"{_name(function)} {problem} class") from None
        parameters = list(inspect.signature(function).parameters)
        if parameters[:1] not in (["self"], ["cls"]):  # a method is read when it is bound
            as_tool(function)
        return function

    return mark if function is None else mark(function)


def as_tool(entry: object) -> Tool:
    """The tool that an entry of ``tools=`` describes.

    Args:
        entry: a function, a ``Tool``, or a definition of a tool as a dictionary in OpenAI's form,
            whose calls somebody else carries out. A ``functools.partial`` is its function with the
            parameters that are left, and an object with ``__call__`` has the name of its class.

    Raises:
        ValidationError: it cannot be described.
    """
    match entry:
        case Tool():
            return entry
        case Mapping():
            return _defined(entry)
    if callable(entry) and isinstance(_origin(entry), type):
        made = "which makes objects: give a function that returns one, or an object with __call__"
        raise tool_error(f"an entry of tools is the class {_origin(entry).__name__}, {made}")
    if not callable(entry):
        raise tool_error(
            "an entry of tools must be a function, a Tool, a source of tools such as MCP, or a "
            f"definition {{'type': 'function', …}}, got {shown(entry)}"
        )
    return _of_function(entry)


def _defined(entry: Mapping[str, Any]) -> Tool:
    function = entry.get("function", entry)
    kind = entry.get("type", "function")
    known = {"name", "description", "parameters", "type", "strict"}
    is_function = isinstance(kind, str) and kind == "function"
    if not is_function or not isinstance(function, Mapping) or set(function) - known:
        wanted = "{'type': 'function', 'function': {'name': …, 'parameters': …}}"
        raise tool_error(f"a definition of a tool must be {wanted}, got {shown(entry)}")
    description = function.get("description")
    parameters = function.get("parameters")
    return Tool(
        function.get("name"),  # type: ignore[arg-type]  # it checks
        "" if description is None else description,
        {"properties": {}} if parameters is None else parameters,
        strict=function.get("strict"),
    )


def _origin(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, or the object that can be called, within partial functions."""
    while isinstance(function, partial):
        function = function.func
    return function


def _name(function: Callable[..., Any]) -> str:
    """The name of a function, or of the class of an object that can be called."""
    origin = _origin(function)
    return str(getattr(origin, "__name__", type(origin).__name__))


def _options(function: Callable[..., Any]) -> _Options:
    """What a function is marked with; of a partial one also what the functions within it are."""
    own: _Options = getattr(function, OPTIONS, _Options())
    if not isinstance(function, partial):
        return own
    inner = _options(function.func)
    return _Options(
        own.name or inner.name,
        inner.description if own.description is None else own.description,
        inner.timeout if own.timeout is None else own.timeout,
        own.needs_approval or inner.needs_approval,
    )


def _of_function(function: Callable[..., Any]) -> Tool:
    origin = _origin(function)
    options = _options(function)
    name = options.name or _name(function)
    implementation = _implementation(origin)
    if inspect.isgeneratorfunction(implementation) or inspect.isasyncgenfunction(implementation):
        wrong = "yields its results one by one, but a call has one result: return a list"
        raise tool_error(f"the tool {name!r} {wrong}", tool=name)
    docstring = implementation.__doc__ if origin is not implementation else None
    description, texts = described(docstring or inspect.getdoc(origin))
    hints, defaults = _parameters(name, function)
    try:
        schema = object_schema(name, {key: (hints[key], key not in defaults) for key in hints})
    except StructuredOutputError as error:
        problem = f"the tool {name!r}: {error.details.get('problem', error)}"
        raise tool_error(problem, tool=name) from error
    for key, parameter in schema["properties"].items():
        if key in texts:
            parameter.setdefault("description", texts[key])
        if key in defaults and _fits(hints[key], defaults[key]):
            parameter.setdefault("default", defaults[key])

    def run(arguments: dict[str, Any]) -> Any:
        return function(**_instances(name, hints, arguments))

    return Tool(
        name,
        description if options.description is None else options.description,
        schema,
        run,
        is_async=_is_async(function),
        timeout=options.timeout,
        needs_approval=options.needs_approval,
    )


def _implementation(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that has the annotations: behind decorators, or of an object's class."""
    found = inspect.unwrap(function)
    return found if inspect.isroutine(found) else type(found).__call__


def _parameters(
    name: str, function: Callable[..., Any]
) -> tuple[dict[str, object], dict[str, object]]:
    """The types of the parameters, and the default values of those that have one."""
    try:
        signature, given = inspect.signature(function), _given(function)
        parameters = {k: each for k, each in signature.parameters.items() if k not in given}
        hints = get_type_hints(_implementation(_origin(function)), include_extras=True)
    except (NameError, TypeError, ValueError, AttributeError) as error:
        wrong = f"the tool {name!r}: its signature cannot be read ({error})"
        raise tool_error(wrong, tool=name) from error
    for key, parameter in parameters.items():
        if parameter.kind in UNSUPPORTED:
            problem = UNSUPPORTED[parameter.kind].format(key)
            raise tool_error(f"the tool {name!r} {problem}: a model needs names", tool=name)
        if key not in hints:
            wrong = f"the parameter {key!r} has no annotation, such as {key}: str"
            raise tool_error(f"the tool {name!r}: {wrong}", tool=name, parameter=key)
        if is_field(parameter.default):
            wrong = f"the default value of the parameter {key!r} is a Field, whose constraints are"
            raise tool_error(
                f"the tool {name!r}: {wrong} not read: write {key}: Annotated[…, Field(…)]",
                tool=name,
                parameter=key,
            )
    empty = inspect.Parameter.empty
    defaults = {k: each.default for k, each in parameters.items() if each.default is not empty}
    return {key: hints[key] for key in parameters}, defaults


def _given(function: Callable[..., Any]) -> set[str]:
    """The parameters to which partial functions give values by name."""
    given: set[str] = set()
    while isinstance(function, partial):
        given.update(function.keywords)
        function = function.func
    return given


def _instances(
    name: str, hints: Mapping[str, object], arguments: Mapping[str, Any]
) -> dict[str, object]:
    """The arguments as instances of the parameters' types."""
    try:
        return {key: instance_of(hints[key], value) for key, value in arguments.items()}
    except (ValueError, TypeError) as error:
        raise ToolExecutionError(
            f"the arguments of the call of {name!r} do not fit: {error}",
            "TOOL_ARGUMENTS_INVALID",
            {"tool": name},
        ) from error


def _is_async(function: Callable[..., Any]) -> bool:
    origin = _origin(function)
    return any(map(inspect.iscoroutinefunction, (origin, _implementation(origin))))


def _fits(hint: object, default: object) -> bool:
    """Whether a default value is plain JSON that a call may have: not None for an ``int``."""
    try:
        json.dumps(default, allow_nan=False)
        instance_of(hint, default)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(default, str | int | float | bool | list | dict | None)
