"""Builds requests: from the items of a chat, from a list of messages, from a text to continue."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from talu.chat.items import (
    FunctionCallOutputItem,
    Item,
    ItemStatus,
    MessageItem,
    MessageRole,
)
from talu.chat.messages import messages_from_items, without_unfinished_calls
from talu.chat.open_calls import results_in_order
from talu.chat.parsing import items_from_messages
from talu.checks import check_boolean, check_token_id, check_token_ids
from talu.config import GenerationConfig, TemplateSource, source_of
from talu.deadline import Deadline, checked
from talu.error_text import shown
from talu.exceptions import EmptyPromptError, ValidationError
from talu.tools.use import ToolUse
from talu.types import Request

OF_TEMPLATES = (  # settings without a meaning where no template makes the prompt
    "allow_thinking",
    "chat_template",
    "extra_context",
    "inject_schema_prompt",
    "max_thinking_tokens",
    "schema_strategy",
    "validation_retries",
)

__all__ = ["chat_request", "check_answerable", "raw_request", "request_of"]


def raw_request(
    prompt: str,
    system: str | None,
    config: GenerationConfig,
    *,
    token_ids: list[int] | None,
    continue_from_token_id: int | None,
    echo_prompt: bool,
) -> Request:
    """The request of a raw completion; ``system`` precedes the prompt, with a blank line between.

    Raises:
        EmptyPromptError: the prompt has no characters and no tokens.
        ValidationError: an argument is invalid, or has no meaning without a template.
    """
    for name, text in (("prompt", prompt), ("system", "" if system is None else system)):
        if not isinstance(text, str):
            wrong = f"{name} must be text, got {shown(text)}"
            raise ValidationError(wrong, details={"param": name})
    for name in OF_TEMPLATES:
        if config.given.get(name) is not None:
            wrong = f"{name} has no meaning in a raw completion, which uses no template"
            raise ValidationError(wrong, details={"param": name})
    if config.given.get("allow_special_tokens") is False:
        wrong = "a raw completion always recognises special tokens: leave allow_special_tokens out"
        raise ValidationError(wrong, details={"param": "allow_special_tokens"})
    check_boolean("echo_prompt", echo_prompt)
    if continue_from_token_id is not None:
        check_token_id("continue_from_token_id", continue_from_token_id)
    if token_ids is not None:
        token_ids = check_token_ids("token_ids", token_ids, ordered=True)
    if system and token_ids is not None:
        wrong = "system= is text and cannot go before token_ids: put its tokens there"
        raise ValidationError(wrong, details={"param": "system"})
    if system:
        prompt = f"{system}\n\n{prompt}"
    if not prompt and not token_ids and continue_from_token_id is None:
        raise EmptyPromptError("the prompt is empty: give at least one character or token id")
    unused = "the text of the prompt was not used: token_ids of completion_opts stand in its place"
    return Request(
        notes=(unused,) if prompt and token_ids is not None else (),
        prompt=prompt,
        token_ids=None if token_ids is None else tuple(token_ids),
        continue_from_token_id=continue_from_token_id,
        echo_prompt=echo_prompt,
        config=config,
    )


def chat_request(
    messages: Iterable[Mapping[str, Any]],
    config: GenerationConfig,
    *,
    tools: ToolUse | None = None,
    deadline: Deadline | None = None,
) -> Request:
    """The request that answers OpenAI-style messages.

    Args:
        messages: the conversation.
        config: the settings.
        tools: what the model may call; nobody carries the calls out here.
        deadline: the time by which the call has to finish.

    Raises:
        ValidationError: a message is malformed, or the last one is neither of the user nor a tool
            result.
    """
    items = items_from_messages(checked(messages, deadline))
    check_answerable(items, "messages")
    request = request_of(items, config, deadline=deadline)
    if tools is None or not tools.tools:
        return request
    return replace(
        request,
        tools=tuple(tool.definition for tool in tools.described.values()),
        tool_choice=tools.tool_choice,
        parallel_tool_calls=tools.parallel_tool_calls,
    )


def request_of(
    items: Iterable[Item],
    config: GenerationConfig,
    template: str | TemplateSource | None = None,
    deadline: Deadline | None = None,
) -> Request:
    """The request that answers these items; a template in the settings replaces the given one."""
    if config.chat_template is not None:
        template = config.chat_template
    sent, notes = without_unfinished_calls(checked(items, deadline))
    ordered = results_in_order(sent)
    messages = messages_from_items(ordered)
    return Request(
        messages=tuple(messages),
        failed_results=_failed_results(messages, ordered),
        config=config,
        deadline=deadline,
        chat_template=source_of(template),
        notes=notes,
    )


def _failed_results(messages: Sequence[Mapping[str, Any]], items: Iterable[Item]) -> frozenset[int]:
    """The numbers of the messages with results of failed calls."""
    places = (number for number, message in enumerate(messages) if message["role"] == "tool")
    results = (item for item in items if isinstance(item, FunctionCallOutputItem))
    return frozenset(
        place
        for place, item in zip(places, results, strict=True)
        if item.status is ItemStatus.FAILED
    )


def check_answerable(items: Sequence[Item], param: str) -> Item:
    """The last item, which the model answers.

    Raises:
        ValidationError: it is neither a message of the user nor a tool result.
    """
    last = items[-1] if items else None
    of_user = isinstance(last, MessageItem) and last.role is MessageRole.USER
    if last is not None and (of_user or isinstance(last, FunctionCallOutputItem)):
        return last
    raise ValidationError(
        "the messages must end with a user message or a tool result, which the model answers; "
        f"the last one is {shown(messages_from_items(items)[-1:] or last)}",
        details={"param": param},
    )
