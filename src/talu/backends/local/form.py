"""Prepares what may follow in the answer of a local model: reasoning, then the form asked for."""

from typing import NamedTuple

from talu.backends.local.prompt import Prompt
from talu.engine.constraints import Constraint, Thinking
from talu.engine.engine import Engine
from talu.exceptions import StructuredOutputError, ValidationError
from talu.structured.formats import ResponseFormat
from talu.structured.report import SchemaReport
from talu.types import Request

__all__ = ["Form", "form_of"]

OPENING = "<think>"
CLOSINGS = ("</think>", "<|/think|>")


class Form(NamedTuple):
    """What constrains an answer, and what becomes of the keywords of its schema."""

    constraint: Constraint | None = None
    report: SchemaReport | None = None


def form_of(request: Request, prompt: Prompt, engine: Engine) -> Form:
    """What constrains the answer to a request; blocks while a new format is compiled.

    It needs a format, or ``max_thinking_tokens``.

    Raises:
        StructuredOutputError: the format cannot be followed.
        ValidationError: the reasoning of this model cannot be limited.
    """
    config = request.config
    form: ResponseFormat | None = config.response_format
    budget = config.max_thinking_tokens
    thinking = _thinking(prompt, engine, budget)
    if form is None:
        constraint = None if thinking is None else Constraint(engine.masks, None, thinking)
        return Form(constraint)
    if not prompt.in_reasoning and not budget and not _asks_to_think(request):
        thinking = None  # a mask would make the tag much more likely than the model does
    compiled = engine.grammars.compiled(form)
    return Form(Constraint(engine.masks, compiled.begin(), thinking), compiled.report)


def _asks_to_think(request: Request) -> bool:
    return bool((request.config.extra_context or {}).get("enable_thinking"))


def _thinking(prompt: Prompt, engine: Engine, budget: int | None) -> Thinking | None:
    """The reasoning that may precede the answer."""
    if not prompt.may_reason:
        return None
    tokenizer = engine.tokenizer
    opening = tokenizer.tag_id(OPENING)
    closing = next((id for tag in CLOSINGS if (id := tokenizer.tag_id(tag)) is not None), None)
    if closing is not None and (prompt.in_reasoning or opening is not None):
        return Thinking(None if prompt.in_reasoning else opening, closing, budget)
    if budget is not None:
        raise ValidationError(
            "the reasoning of this model cannot be limited: the tags around it are no tokens of "
            "its vocabulary; leave max_thinking_tokens out",
            details={"param": "max_thinking_tokens"},
        )
    if prompt.in_reasoning:
        raise StructuredOutputError(
            "this model begins with reasoning, and the tag that ends it is no token of its "
            "vocabulary, so that no response_format can follow it"
        )
    return None
