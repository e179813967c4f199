"""Defines the language of chat templates: Jinja's sandbox, with all work metered.

Templates can use the names that ``transformers`` defines, except the few that take more than linear
time.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache, wraps
from string import Formatter
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import ignore_case, make_attrgetter
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace, pass_context, pass_environment

from talu.exceptions import TemplateError, TemplateSyntaxError
from talu.template.limits import ELEMENT, MAX_TOKENS, STEP, Meter, template_time

__all__ = ["Rendering", "environment", "joined", "rendering"]


class Rendering(NamedTuple):
    """The state of one rendering; compiled templates are shared between threads.

    Attributes:
        meter: the work that is still allowed.
        now: the time for ``strftime_now``; None is the current local time.
    """

    meter: Meter
    now: datetime | None


rendering: ContextVar[Rendering] = ContextVar("rendering")


def joined(pieces: Iterable[str]) -> str:
    """The joined pieces; their length is charged."""
    meter = rendering.get().meter
    parts = []
    for piece in pieces:
        meter.charge(len(piece))
        parts.append(piece)
    return "".join(parts)


@lru_cache(maxsize=2)
def environment(strict: bool) -> jinja2.Environment:
    """The environment that compiles templates; if strict, undefined variables are errors."""
    return _Sandbox(jinja2.StrictUndefined if strict else jinja2.Undefined)


class _MeteredCode(CodeGenerator):
    """Compiles charges into a template for work that bypasses the sandbox's methods."""

    def blockvisit(self, nodes_: Iterable[nodes.Node], frame: Frame) -> None:
        self.writeline("environment.step()")
        super().blockvisit(nodes_, frame)

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        with template_time() as clock:
            clock.check()
        return super().visit(node, *args, **kwargs)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self.write("environment.made(")
        super().visit_List(node, frame)
        self.write(")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        read = node.ctx == "load"
        self.write("environment.made(" * read)
        super().visit_Tuple(node, frame)
        self.write(")" * read)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        if node.test is not None:
            step = nodes.Call(nodes.EnvironmentAttribute("step"), [], [], None, None)
            node.test = nodes.And(step, node.test)
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        sliced = isinstance(node.arg, nodes.Slice)
        self.write("environment.made(" * sliced)
        super().visit_Getitem(node, frame)
        self.write(")" * sliced)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("environment.made({")
        for item in node.items:
            self.write("environment.key(")
            self.visit(item.key, frame)
            self.write("): ")
            self.visit(item.value, frame)
            self.write(", ")
        self.write("})")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("(")
        self._measured(node.expr, frame)
        for operand in node.ops:
            self.visit(operand, frame)
        self.write(")")

    def visit_Operand(self, node: nodes.Operand, frame: Frame) -> None:
        self.write(f" {operators[node.op]} ")
        self._measured(node.expr, frame)

    def _measured(self, node: nodes.Expr, frame: Frame) -> None:
        """Charge for an operand, because comparing nested values can take exponential time."""
        self.write("environment.measured(")
        self.visit(node, frame)
        self.write(")")


class _TokenLimit(Extension):
    """Refuses a template with so many tokens that compiling it would take long."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for at, token in enumerate(stream):
            if at >= MAX_TOKENS:
                raise TemplateSyntaxError(
                    f"the chat template has more than {MAX_TOKENS} tokens",
                    code="TEMPLATE_LIMIT_EXCEEDED",
                )
            yield token


class _GenerationBlock(Extension):
    """``{% generation %}`` marks the assistant's text for training; only its body is rendered."""

    def __init__(self, owner: jinja2.Environment) -> None:
        super().__init__(owner)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Macro) -> str:
        return str(caller())


class _Namespace(Namespace):
    """Jinja's namespace without private names; its repr does not show its values."""

    def __init__(self, /, *args: Any, **items: Any) -> None:
        super().__init__()
        for name, value in _dict(*args, **items).items():
            self[name] = value

    def __setitem__(self, name: str, value: object) -> None:
        if not isinstance(name, str) or name.startswith("_"):
            raise SecurityError(f"a namespace takes no attribute {name!r}")
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with fewer names, in which everything that makes text or lists is metered."""

    code_generator_class = _MeteredCode
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, undefined: type[jinja2.Undefined]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=undefined,
            extensions=[_TokenLimit, _GenerationBlock, loopcontrols],
            finalize=_shown,
            optimized=False,  # folding constants at compile time would not be metered
            loader=jinja2.FunctionLoader(_refuse_other_template),
        )
        self.filters["unique"] = _unique
        self.filters["tojson"] = _tojson
        for name in ("pprint", "striptags", "urlize", "wordwrap"):  # slower than linear
            del self.filters[name]
        self.filters = {name: _metered(name, each) for name, each in self.filters.items()}
        self.tests |= {name: _metered(name, self.tests[name]) for name in _TESTS}
        del self.globals["lipsum"]
        self.globals |= {
            "cycler": lambda *items: Cycler(*items),
            "dict": _dict,
            "joiner": lambda separator=", ": Joiner(separator),
            "namespace": lambda *args, **items: _Namespace(*args, **items),
            "raise_exception": _raise_exception,
            "range": _range,
            "strftime_now": _strftime_now,
        }

    def step(self) -> bool:
        rendering.get().meter.charge(STEP)
        return True

    def made(self, value: object) -> object:
        rendering.get().meter.elements(value)
        return value

    def measured(self, value: object) -> object:
        rendering.get().meter.compared(value)
        return value

    def key(self, value: object) -> object:
        rendering.get().meter.key(value)
        return value

    def joined(self, values: tuple[object, ...]) -> str:
        rendering.get().meter.text(values)
        return "".join(map(str, values))

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        return joined(pieces)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter = rendering.get().meter
        if operator == "*":
            meter.multiply(left, right)
        elif operator == "**":
            meter.power(left, right)
        elif operator == "%":
            meter.percent(left, right)
        return self.made(super().call_binop(context, operator, left, right))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        meter = rendering.get().meter
        if not isinstance(obj, Macro):
            meter.text(args, kwargs)
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            args = tuple(map(_listed, args))
            meter.method(owner, obj.__name__, (*args, *kwargs.values()))
        elif isinstance(owner, list | tuple):  # index and count compare all elements
            meter.text(owner)
        return self.made(super().call(context, obj, *args, **kwargs))

    def getitem(self, obj: Any, argument: Any) -> Any:
        return super().getitem(obj, self.measured(argument))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _NO_ATTRIBUTES and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        return wrapped and _metered_format(value.__self__, wrapped)


_NO_ATTRIBUTES = {
    *("encode", "expandtabs", "from_bytes", "maketrans", "striptags", "to_bytes", "translate"),
}
# How a filter uses its value: it returns the value, iterates over its elements, or consumes an
# iterator; all other filters convert the value to text.
_PASS_ON = {"attr", "count", "d", "default", "first", "last", "length", "random", "tojson"}
_GO_OVER = {"items", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr"}
_USE_UP = {"batch", "groupby", "join", "max", "min", "slice", "sort", "sum", "unique"}
# The filters that work on each element, some of them lazily.
_EACH = _USE_UP | {"map", "reject", "rejectattr", "select", "selectattr"}
# The tests that compare values or convert them to text; the others only check the type.
_TESTS = {
    *("!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "in", "le"),
    *("lessthan", "lower", "lt", "ne", "upper"),
}


def _metered(name: str, each: Any) -> Callable[..., Any]:
    """A filter or test that charges for its work before it starts, then for its result."""
    at = 1 if hasattr(each, "jinja_pass_arg") else 0

    @wraps(each)
    def metered(*args: Any, **kwargs: Any) -> Any:
        meter = rendering.get().meter
        given, value, options = args[:at], args[at], args[at + 1 :]
        if name in _USE_UP:
            value = _listed(value)
        if name in _GO_OVER:
            size = len(value) if hasattr(value, "__len__") else 1
            meter.charge(ELEMENT * size if name == "list" else max(size, STEP))
        elif name not in _PASS_ON:
            meter.text(value)
        meter.filter(name, value, options, kwargs)
        if (
            name in _EACH
            and isinstance(value, Iterable)
            and not isinstance(value, jinja2.Undefined)
        ):
            value = _counted(value)
        made = each(*given, value, *options, **kwargs)
        meter.elements(made)
        return made

    return metered


def _listed(value: object) -> object:
    """An iterator as a list, so that it can be measured."""
    if not isinstance(value, Iterator):
        return value
    meter = rendering.get().meter
    items = []
    for item in value:
        meter.charge(STEP)
        items.append(item)
    return items


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    """The same elements; each is charged when it is read."""
    meter = rendering.get().meter
    for value in values:
        meter.charge(STEP)
        yield value


def _dict(pairs: Any = (), /, **items: Any) -> dict[Any, Any]:
    """Python's ``dict`` with checked keys."""
    meter = rendering.get().meter
    if isinstance(pairs, Mapping):
        return {**pairs, **items}
    made = {}
    for key, value in pairs:
        meter.charge(STEP)
        meter.key(key)
        made[key] = value
    return made | items


@pass_environment
def _unique(
    environment: jinja2.Environment,
    value: Iterable[Any],
    case_sensitive: bool = False,
    attribute: str | int | None = None,
) -> Iterator[Any]:
    """Jinja's ``unique`` with checked keys."""
    meter = rendering.get().meter
    key_of = make_attrgetter(
        environment, attribute, postprocess=None if case_sensitive else ignore_case
    )
    seen = set()
    for item in value:
        key = key_of(item)
        if not isinstance(key, jinja2.Undefined):
            meter.key(key)
        if key not in seen:
            seen.add(key)
            yield item


def _refuse_other_template(name: str) -> str:
    raise SecurityError("it loads another template; a chat template must be a single file")


def _metered_format(template: str, wrapped: Callable[..., str]) -> Callable[..., str]:
    @wraps(wrapped)
    def metered(*args: Any, **kwargs: Any) -> str:
        specs = [spec for _, _, spec, _ in Formatter().parse(template)]
        rendering.get().meter.braces(template, specs, (args, kwargs))
        return wrapped(*args, **kwargs)

    return metered


@pass_context  # so that Jinja does not call it for constants at compile time
def _shown(context: Context, value: object) -> object:
    rendering.get().meter.text(value)
    return value


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as in transformers: non-ASCII characters are kept, nothing is escaped for HTML."""
    meter = rendering.get().meter
    meter.width(indent, *(separators or ()))
    meter.text(value)
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    if indent is None and separators is None:
        return encoder.encode(value)
    return joined(encoder.iterencode(value))


def _range(*bounds: Any) -> range:
    numbers = range(*bounds)
    rendering.get().meter.numbers(numbers)
    return numbers


def _raise_exception(message: object) -> None:
    raise TemplateError(
        f"the chat template refuses the conversation: {message}", code="TEMPLATE_RAISE_EXCEPTION"
    )


def _strftime_now(pattern: str) -> str:
    rendering.get().meter.width(pattern)
    return (rendering.get().now or datetime.now()).strftime(pattern)
