"""Converts a request to the prompt of a local model, as text and token ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from talu.deadline import checked
from talu.engine.engine import Engine
from talu.exceptions import EmptyPromptError, TemplateError, ValidationError
from talu.template.adaptation import adapt
from talu.template.limits import template_time
from talu.template.masking import Mask, texts_of
from talu.template.plain import plain
from talu.template.prompt_template import PromptTemplate
from talu.template.render import render_plain, traits
from talu.tokenizer.encoding import Watch
from talu.tokenizer.tokenizer import TAGS, Tokenizer
from talu.types import Request
from talu.unicode import check_unicode, is_unicode

__all__ = ["Prompt", "prompt_of", "stop_notes"]

TRIED = 32  # messages that are rendered to find the fewest tokens of one


@dataclass(frozen=True, slots=True)
class Prompt:
    """The model's input.

    Attributes:
        text: the prompt; special tokens are spelled out.
        ids: its tokens.
        in_reasoning: whether the template ends it with an open ``<think>``.
        notes: differences between the request and what the model reads.
    """

    text: str
    ids: list[int]
    in_reasoning: bool = False
    notes: tuple[str, ...] = ()


def prompt_of(request: Request, engine: Engine, ref: str, *, must_fit: bool = False) -> Prompt:
    """The prompt of a request.

    Args:
        request: messages, or a raw prompt.
        engine: provides tokenizer and templates.
        ref: the model's name, for errors.
        must_fit: refuse a text that cannot fit before it is tokenized.

    Raises:
        EmptyPromptError: there is no message, text or token.
        GenerationError: the text is so long that it cannot fit (code
            ``GENERATION_CONTEXT_OVERFLOW``), or the request's time is over.
        TemplateError: the model has no chat template, or the template fails.
        TokenizerError: the text cannot be tokenized.
        ValidationError: the parts of the request contradict each other.
    """
    if request.messages is None:
        return _raw(request, engine, must_fit)
    for name in ("token_ids", "continue_from_token_id"):
        if getattr(request, name) is not None:
            raise ValidationError(
                f"{name} needs a raw prompt; with messages the template makes the prompt",
                details={"param": name},
            )
    if not request.messages:
        raise EmptyPromptError("there are no messages to answer")
    with template_time(request.deadline):
        return _conversation(request, engine, _template(request, engine, ref), must_fit)


def stop_notes(sequences: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Notes on stop sequences that cannot occur, because they mix special tokens and text."""
    hidden = [token for token in tokenizer.special_tokens if token not in TAGS]
    return [
        f"the stop sequence {sequence[:100]!r} combines a special token with other text, but the "
        "text of an answer has no special tokens: it cannot occur; give the special token alone"
        for sequence in sequences
        if tokenizer.stop_token_id(sequence) is None and any(each in sequence for each in hidden)
    ]


def _conversation(request: Request, engine: Engine, source: str, must_fit: bool) -> Prompt:
    tokenizer, deadline = engine.tokenizer, request.deadline
    if must_fit:
        _check_count(len(request.messages or ()), engine, source)
    check = deadline.check if deadline is not None else None
    copies = plain(request.messages, "messages", check)
    messages = adapt(checked(copies, deadline), traits(source))
    tools = plain(request.tools, "tools", check)
    extra = plain(request.config.extra_context or {}, "extra_context", check)
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
    watch = _watch(request, engine, text, must_fit)
    if source == PromptTemplate.RAW.source:  # it writes no special tokens: the tokenizer adds them
        return Prompt(text, tokenizer.encode(text, watch=watch))
    if request.config.allow_special_tokens:
        ids = tokenizer.encode(text, special_tokens=False, watch=watch)
    else:
        ids = tokenizer.encode_parts(parts, watch=watch)
    spelled = sorted({piece for piece, is_spelling in parts if is_spelling})
    notes = [_note(spelled)] if spelled else []
    if any("name" in message for message in messages) and not traits(source).names:
        notes.append("the chat template does not show the model the names of messages")
    if any(map(_has_foreign_reasoning, request.messages or ())):
        notes.append("the reasoning of other providers in the history was left out of the prompt")
    return Prompt(text, ids, rendered.rstrip().endswith("<think>"), tuple(notes))


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
    if request.config.allow_special_tokens or source == PromptTemplate.RAW.source:
        return Mask(texts)
    whole = "\0".join(texts[1:])
    tags = [tag for tag in tokenizer.plain_added_tokens if tag in whole]
    if tags:
        shown = traits(source).conversation
        tags = [tag for tag in tags if tag in shown]
    return Mask(texts, tokenizer.special_tokens, tags)


def _watch(request: Request, engine: Engine, text: str, must_fit: bool) -> Watch:
    """Checks the limits of a request now, and between the pieces of its prompt."""

    def watch(count: int | None) -> None:
        if request.deadline is not None:
            request.deadline.check()
        if must_fit:
            engine.check_length(text, count)

    watch(None)
    return watch


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
    if request.tools and not traits(source).tools:
        raise ValidationError(
            f"the chat template of {ref} does not show tools to the model; choose a "
            "model that was trained with tools, or give a chat_template that lists them",
            details={"param": "tools"},
        )
    return source


def _raw(request: Request, engine: Engine, must_fit: bool) -> Prompt:
    tokenizer = engine.tokenizer
    if request.tools:
        raise ValidationError(
            "tools need messages: a raw prompt has no template that could show them",
            details={"param": "tools"},
        )
    if request.token_ids is not None:
        engine.check_ids("token_ids", request.token_ids)
        ids = list(request.token_ids)
        text = tokenizer.decode(ids, skip_special_tokens=False)
    else:
        text = request.prompt or ""
        watch = _watch(request, engine, text, must_fit)
        ids = tokenizer.encode(text, watch=watch) if text else []
    if request.continue_from_token_id is not None:
        engine.check_ids("continue_from_token_id", [request.continue_from_token_id])
        ids.append(request.continue_from_token_id)
        text += tokenizer.token_text(request.continue_from_token_id)
    if not ids:
        raise EmptyPromptError("the prompt is empty; give some text or token ids")
    return Prompt(text, ids)
