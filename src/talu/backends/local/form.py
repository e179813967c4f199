"""Prepares what may follow in the answer of a local model: reasoning, then calls or a form."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from talu.backends.local.prompt import Prompt
from talu.backends.local.tool_rules import ToolRules
from talu.engine.constraints import Constraint, Thinking
from talu.engine.engine import Engine
from talu.exceptions import StructuredOutputError, ValidationError
from talu.structured.formats import ResponseFormat
from talu.structured.report import SchemaReport
from talu.tool_formats.reader import CLOSINGS, THINK
from talu.types import Request

__all__ = ["Form", "form_of"]


class Form(NamedTuple):
    """What constrains an answer, and what becomes of the keywords of its schema and the tools'."""

    constraint: Constraint | None = None
    report: SchemaReport | None = None
    tool_reports: Mapping[str, SchemaReport] = MappingProxyType({})


def form_of(request: Request, prompt: Prompt, engine: Engine) -> Form:
    """What constrains the answer to a request; blocks while a new grammar is compiled.

    It needs a format, tools, or a setting of reasoning.

    Raises:
        StructuredOutputError: the format, or the arguments of a tool cannot be followed.
        ValidationError: the reasoning of this model cannot be limited, or there is no tool of the
            name that ``tool_choice`` has.
    """
    config = request.config
    form: ResponseFormat | None = config.response_format
    budget = _budget(request, prompt)
    rules = ToolRules(request, prompt.calls, engine) if prompt.calls is not None else None
    free = form is None and (rules is None or rules.choice == "auto")
    thinking = _thinking(prompt, engine, budget, must_end=not free)
    report = None
    if form is not None:
        report = replace(engine.grammars.compiled(form).report, explained=prompt.explained)
    if free:
        waiting = rules.waiting(prompt) if rules is not None else None
        reports = rules.reports() if rules is not None else {}
        constrains = thinking is not None and (budget is not None or rules is None)
        if not constrains and waiting is None:
            return Form()
        constraint = Constraint(engine.masks, None, thinking if constrains else None, waiting)
        return Form(constraint, None, reports)
    if not prompt.in_reasoning and not budget and not _asks_to_think(request):
        thinking = None  # a mask would make the tag much more likely than the model does
    if rules is not None:
        matcher = rules.matcher(form)
        return Form(Constraint(engine.masks, matcher, thinking), report, rules.reports())
    assert form is not None
    matcher = engine.grammars.compiled(form).begin()
    return Form(Constraint(engine.masks, matcher, thinking), report)


def _asks_to_think(request: Request) -> bool:
    context = request.config.extra_context or {}
    return request.config.allow_thinking or bool(context.get("enable_thinking"))


def _budget(request: Request, prompt: Prompt) -> int | None:
    """The most tokens of reasoning; None for no limit.

    Raises:
        ValidationError: reasoning is forbidden and given tokens.
    """
    config = request.config
    if config.given.get("allow_thinking") is not False:
        return config.max_thinking_tokens
    if config.max_thinking_tokens:
        raise ValidationError(
            "allow_thinking=False and max_thinking_tokens contradict each other: leave one out",
            details={"param": "allow_thinking"},
        )
    return 0 if prompt.may_reason else None


def _thinking(
    prompt: Prompt, engine: Engine, budget: int | None, *, must_end: bool
) -> Thinking | None:
    """The reasoning that may precede the answer.

    Args:
        prompt: says whether it has begun, and its tags.
        engine: of the model.
        budget: its most tokens.
        must_end: a grammar begins where it ends.
    """
    if not prompt.may_reason:
        return None
    tags = engine.tokenizer.tags_in(prompt.reasoning or ())
    opening, *closings = prompt.reasoning or (THINK.opening, *CLOSINGS)
    first = tags.get(opening)
    last = next((tags[tag] for tag in closings if tag in tags), None)
    if last is not None and (prompt.in_reasoning or first is not None):
        return Thinking(None if prompt.in_reasoning else first, last, budget)
    if budget is not None:
        raise ValidationError(
            "the reasoning of this model cannot be limited: the tags around it are no tokens of "
            "its vocabulary; leave max_thinking_tokens and allow_thinking out",
            details={"param": "max_thinking_tokens"},
        )
    if prompt.in_reasoning and must_end:
        raise StructuredOutputError(
            "this model begins with reasoning, and the tag that ends it is no token of its "
            "vocabulary, so that no response_format or tool_choice can follow it"
        )
    return None
