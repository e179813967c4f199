"""Renders a conversation into the prompt format that a model was trained on."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from talu.exceptions import TemplateError, ValidationError
from talu.template.adaptation import Messages, Traits, adapt
from talu.template.limits import template_time
from talu.template.plain import plain
from talu.template.sandbox import run_template

__all__ = ["RAW", "render", "render_plain", "traits"]

RAW = r"{{ messages | map(attribute='content') | select | join('\n\n') }}"  # no template at all
_OWN = {"messages", "tools", "add_generation_prompt"}


def render(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    add_generation_prompt: bool = True,
    tokens: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    strict: bool = False,
    now: datetime | None = None,
) -> str:
    """Render a chat template as ``transformers`` does.

    Messages that the template would drop or fail on are converted to a form that it supports; see
    ``adaptation.py``.

    Args:
        source: Jinja source of the template.
        messages: OpenAI-style: role, content (a text, or a list of text parts), tool_calls,
            tool_call_id, reasoning_content.
        tools: OpenAI-style tool definitions.
        add_generation_prompt: end with the opening of the assistant's turn.
        tokens: special tokens by name: ``bos_token``, ``eos_token`` and others. Names that are not
            given are undefined in the template.
        extra: further variables (``enable_thinking``, ``documents`` …); plain data.
        strict: an undefined variable is an error instead of empty text.
        now: the date and time for the template; None is the current local time.

    Raises:
        ValidationError: a message is malformed, or ``extra`` repeats another argument.
        TemplateError: see ``sandbox.run_template``.
    """
    with template_time():
        return render_plain(
            source,
            adapt(plain(messages, "messages"), traits(source)),
            tools=plain(tools, "tools"),
            add_generation_prompt=add_generation_prompt,
            tokens=tokens or {},
            extra=plain(extra or {}, "extra_context"),
            strict=strict,
            now=now,
        )


def render_plain(
    source: str,
    messages: Messages,
    *,
    tools: Messages,
    add_generation_prompt: bool,
    tokens: Mapping[str, str],
    extra: Mapping[str, Any],
    strict: bool = False,
    now: datetime | None = None,
) -> str:
    """Like ``render``, for values that are plain and messages that are adapted already."""
    doubled = sorted(_OWN & extra.keys())
    if doubled:
        raise ValidationError(
            f"extra_context contains {doubled[0]!r}, which the template gets from the chat",
            details={"param": "extra_context", "where": doubled[0]},
        )
    variables = {
        "documents": None,
        **tokens,
        **extra,
        "messages": messages,
        "tools": tools or None,
        "add_generation_prompt": add_generation_prompt,
    }
    return run_template(source, variables, strict=strict, now=now)


@lru_cache(maxsize=64)
def traits(source: str) -> Traits:
    """What a template shows; each trait is tried once.

    Raises:
        TemplateError: TEMPLATE_LIMIT_EXCEEDED if the template exceeded a limit while it was tried;
            it is not tried again.
    """
    stopped: list[str] = []

    def attempt(messages: Messages, tools: Messages | None) -> str | None:
        variables = {
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": True,
            "bos_token": "",
            "eos_token": "",
        }
        if stopped:
            raise TemplateError(stopped[0], "TEMPLATE_LIMIT_EXCEEDED")
        try:
            return run_template(source, variables)
        except TemplateError as error:
            if error.code == "TEMPLATE_LIMIT_EXCEEDED":
                stopped.append(str(error))
                raise
            return None

    return Traits(attempt)
