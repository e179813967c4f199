"""Renders a conversation with the template of a local model, and tokenizes it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from talu.backends.local.prompt import Prompt, watch_of
from talu.deadline import checked
from talu.engine.engine import Engine
from talu.error_text import shown
from talu.exceptions import TemplateError, ValidationError
from talu.first_use import loaded
from talu.structured.places import Explained, may_be_explained
from talu.template.adaptation import Messages, adapt
from talu.template.limits import template_time
from talu.template.masking import Mask, texts_of
from talu.template.plain import plain
from talu.template.render import RAW, render_plain, traits
from talu.thinking import template_variables
from talu.tokenizer.tokenizer import Tokenizer
from talu.tool_formats.reader import THINK
from talu.types import Request
from talu.unicode import check_unicode, is_unicode

if TYPE_CHECKING:  # loaded when there are tools, or tags that have to be found out
    from talu.backends.local.tool_prompt import Shown

__all__ = ["conversation_prompt"]

OTHER_REASONING = ("reasoning", "thinking", "THINK")  # in templates with other tags for it
TRIED = 32  # messages that are rendered to find the fewest tokens of one


def conversation_prompt(request: Request, engine: Engine, ref: str, *, must_fit: bool) -> Prompt:
    """The prompt of a request with messages; see ``prompt_of``.

    Raises:
        TemplateError: the model has no chat template, or the template fails.
        TaluError: as ``prompt_of``.
    """
    with template_time(request.deadline):
        return _rendered(request, engine, _template(request, engine, ref), must_fit)


def _rendered(request: Request, engine: Engine, source: str, must_fit: bool) -> Prompt:
    tokenizer, deadline = engine.tokenizer, request.deadline
    request, strategy, unfilled = _explained(request)
    if must_fit:
        _check_count(len(request.messages or ()), engine, source)
    check = deadline.check if deadline is not None else None
    copies = plain(request.messages, "messages", check)
    tools = plain(request.tools, "tools", check)
    way: Shown | None = None
    if _needs_derivation(source, copies, tools):
        ends = [tokenizer.token_text(number) for number in sorted(engine.end_token_ids)]
        way = loaded("talu.backends.local.tool_prompt", "shown")(source, copies, tools, ends)
        copies, tools = way.messages, way.tools
    messages = adapt(checked(copies, deadline), traits(source))
    extra = plain(template_variables(request.config), "extra_context", check)
    if request.demands_call and not request.tools:
        raise ValidationError(
            f"tool_choice={shown(request.tool_choice)} needs tools",
            details={"param": "tool_choice"},
        )
    texts = [source, *texts_of([messages, tools, extra])]
    _check_unicode(texts, messages, tools=tools, extra_context=extra)
    mask = _mask(texts, request, tokenizer)
    rendered = render_plain(
        source,
        [
            mask.apply(each, assistant=each["role"] == "assistant")
            for each in checked(messages, deadline)
        ],
        tools=mask.apply(tools),
        add_generation_prompt=request.add_generation_prompt,
        tokens=tokenizer.names,
        extra={
            name: value if name in tokenizer.names else mask.apply(value)
            for name, value in extra.items()
        },
    )
    parts = mask.parts(rendered)
    text = "".join(piece for piece, _ in parts)
    watch = watch_of(request, engine, text, must_fit)
    if source == RAW:  # it writes no special tokens: the tokenizer adds them
        return Prompt(text, tokenizer.encode(text, watch=watch))
    if request.config.allow_special_tokens:
        ids = tokenizer.encode(text, special_tokens=False, watch=watch)
    else:
        ids = tokenizer.encode_parts(parts, watch=watch)
    reasoning = way.reasoning if way is not None else None
    opening, closing = reasoning or THINK
    begins = way.begins_reasoning if way is not None else ""
    end = rendered.rstrip()
    may_reason = (reasoning is not None or "think>" in source) and not end.endswith(closing)
    return Prompt(
        text,
        ids,
        in_reasoning=bool(
            (opening and end.endswith(opening)) or (begins and rendered.endswith(begins))
        ),
        may_reason=may_reason,
        reasoning=reasoning,
        calls=way.calls if way is not None else None,
        explained=strategy,
        notes=(
            *_notes(request, source, messages, parts, may_reason),
            *(way.notes if way is not None else ()),
            *unfilled,
        ),
    )


def _explained(request: Request) -> Explained:
    """The request with an explanation of the form of its answer."""
    if not may_be_explained(request):
        return Explained(request)
    found: Explained = loaded("talu.structured.explanation", "explained")(request, unasked=True)
    return found


def _notes(
    request: Request,
    source: str,
    messages: Messages,
    parts: Sequence[tuple[str, bool]],
    may_reason: bool,
) -> list[str]:
    """How the prompt differs from what was asked for."""
    spelled = sorted({piece for piece, is_spelling in parts if is_spelling})
    notes = [_note(spelled)] if spelled else []
    named = [each for each in messages if "name" in each and each.get("role") != "tool"]
    if named and not traits(source).names:  # a result has the id of its call
        notes.append("the chat template does not show the model the names of messages")
    if any(map(_has_foreign_reasoning, request.messages or ())):
        notes.append("the reasoning of other providers in the history was left out of the prompt")
    if request.config.allow_thinking and not may_reason:
        notes.append("the chat template has no reasoning that allow_thinking could allow")
    return notes


def _needs_derivation(source: str, messages: object, tools: Messages) -> bool:
    """Whether the template has to be asked how it writes calls or reasoning."""
    if tools or source == RAW:
        return bool(tools)
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and (
            message.get("tool_calls") or message.get("role") == "tool"
        ):
            return True
    return "<think>" not in source and any(word in source for word in OTHER_REASONING)


def _has_foreign_reasoning(message: Mapping[str, Any]) -> bool:
    return "provider_data" in message and "reasoning_content" in message


def _check_count(count: int, engine: Engine, source: str) -> None:
    """Refuse so many messages that they cannot fit, before they are converted.

    Some templates show only the last messages, or nothing of an empty one. So the fewest tokens of
    a message are counted in conversations of empty messages.

    Raises:
        GenerationError: they cannot fit (code ``GENERATION_CONTEXT_OVERFLOW``).
    """
    if count < engine.context_length:
        return
    once, twice = (
        len(engine.tokenizer.encode(traits(source).repeated(size), special_tokens=False))
        for size in (TRIED, 2 * TRIED)
    )
    if twice - once >= TRIED:
        raise engine.overflow(
            f"the conversation has {count:,} messages, which are at least as many tokens",
            {"messages": count, "prompt_tokens_at_least": count},
        )


def _check_unicode(texts: Sequence[str], messages: Sequence[object], **others: object) -> None:
    """Refuse a lone surrogate, naming its place in the request and not in the prompt."""
    if is_unicode("".join(texts)):
        return
    for number, message in enumerate(messages):
        for text in texts_of(message):
            check_unicode(f"a text of message {number}", text)
    for name, value in others.items():
        for text in texts_of(value):
            check_unicode(f"a text of {name}", text)


def _mask(texts: list[str], request: Request, tokenizer: Tokenizer) -> Mask:
    """The mask for special tokens spelled in a request; its template is the first text.

    Tokens that are not marked special are included if the template writes them around messages.
    The assistant's messages may contain those, because the model may have written them.
    """
    source = texts[0]
    if request.config.allow_special_tokens or source == RAW:
        return Mask(texts)
    whole = "\0".join(texts[1:])
    tags = [tag for tag in tokenizer.plain_added_tokens if tag in whole]
    if tags:
        shown = traits(source).conversation
        tags = [tag for tag in tags if tag in shown]
    return Mask(texts, tokenizer.special_tokens, tags)


def _note(spelled: Sequence[str]) -> str:
    return (
        f"the conversation spells special tokens of the model ({', '.join(spelled)[:200]}): the "
        "model reads them as plain text; allow_special_tokens=True makes them tokens"
    )


def _template(request: Request, engine: Engine, ref: str) -> str:
    templates = engine.chat_templates
    source = request.chat_template
    if source is None and request.tools:
        source = templates.get("tool_use")
    if source is None:
        source = templates.get("default")
    if source is None:
        raise TemplateError(
            f"{ref} has no chat template: it is made for raw completions; give a "
            "chat_template, or use raw_complete",
            "TEMPLATE_NOT_FOUND",
        )
    return source
