"""The bodies of Anthropic's messages, which become requests.

https://docs.anthropic.com/en/api/messages.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from talu.chat.requests import chat_request
from talu.config import merged
from talu.deadline import Deadline
from talu.server.asked import Asked
from talu.server.bodies import MAX_MESSAGES, Body
from talu.server.failures import Failure, invalid, naming
from talu.server.tool_use import use_of
from talu.tools.definition import Tool
from talu.tools.use import ToolUse
from talu.types import Request

__all__ = ["CountBody", "MessagesBody", "asked", "request_of"]

NAMES = {"response_format": "output_config", "max_thinking_tokens": "thinking"}
CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class CacheControl(Body):
    """A hint that has no effect: what was computed of a prompt is always reused."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Block(Body):
    """What all blocks may have."""

    cache_control: CacheControl | None = None


class TextBlock(Block):
    """Text."""

    type: Literal["text"]
    text: str


class ThinkingBlock(Body):
    """Reasoning of an earlier answer; the signature is not looked at."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class ToolUseBlock(Block):
    """A tool call of an earlier answer."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(Block):
    """The result of a tool call; text only."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None


AnyBlock = Annotated[
    TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")
]


class Message(Body):
    """A message of one of the sides."""

    role: Literal["user", "assistant", "system"]
    content: str | list[AnyBlock]


class CustomTool(Block):
    """A tool of the client; ``strict`` has no effect: calls always fit the schema."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    strict: bool | None = None


class ToolChoice(Body):
    """What the model has to call."""

    type: Literal["auto", "any", "none", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    """Whether the model reasons, and for how many tokens."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, Field(ge=1)] | None = None


class JsonSchemaForm(Body):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    """The form of the answer."""

    format: JsonSchemaForm | None = None


class Metadata(Body):
    """What has no effect here."""

    user_id: str | None = None


class CountBody(Body):
    """The body of a request that counts tokens."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    system: str | list[TextBlock] | None = None
    tools: list[CustomTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None


class MessagesBody(CountBody):
    """The body of a message. ``metadata`` and ``cache_control`` have no effect.

    ``temperature``, ``top_p`` and ``top_k`` are those of earlier versions of the protocol.
    """

    max_tokens: Annotated[int, Field(ge=1)]
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stream: bool | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None


def asked(body: MessagesBody, deadline: Deadline | None, namespace: str | None) -> Asked:
    """What a body asks for; see ``openai_chat.asked``."""
    settings = {
        "max_tokens": body.max_tokens,
        "stop_sequences": body.stop_sequences,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "cache_namespace": namespace,
    }
    request = request_of(body, deadline, settings)
    return Asked(body.model, (request,), bool(body.stream), NAMES)


def request_of(body: CountBody, deadline: Deadline | None, settings: dict[str, Any]) -> Request:
    """The request of a body.

    Args:
        body: the body.
        deadline: the time by which the request has to be answered.
        settings: the settings that not every body has.

    Raises:
        Failure: the body is not valid.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    if body.output_config is not None and body.output_config.format is not None:
        settings["response_format"] = body.output_config.format.schema_
    if body.thinking is not None:
        settings["allow_thinking"] = body.thinking.type != "disabled"
        if body.thinking.budget_tokens is not None:
            settings["max_thinking_tokens"] = body.thinking.budget_tokens
    with naming(NAMES):
        messages = [each for message in _all_messages(body) for each in _converted(message)]
        tools = _tools(body)
        request = chat_request(messages, merged(settings=settings), tools=tools, deadline=deadline)
    return replace(request, failed_results=_failed(body, request))


def _all_messages(body: CountBody) -> list[Message]:
    if body.system is None:
        return body.messages
    return [Message(role="system", content=list(_parts(body.system))), *body.messages]


def _parts(content: str | list[TextBlock]) -> list[TextBlock]:
    return [TextBlock(type="text", text=content)] if isinstance(content, str) else content


def _converted(message: Message) -> Iterator[dict[str, Any]]:
    """The messages in OpenAI's form: each result of a call is one, and so is the text between."""
    blocks = message.content
    if isinstance(blocks, str):
        yield {"role": message.role, "content": blocks}
        return
    if message.role == "assistant":
        yield _of_assistant(blocks)
        return
    texts: list[str] = []
    for block in blocks:
        match block:
            case TextBlock():
                texts.append(block.text)
            case ToolResultBlock():
                if texts:
                    yield {"role": message.role, "content": "".join(texts)}
                    texts = []
                result = "".join(part.text for part in _parts(block.content or ""))
                yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": result}
            case _:
                raise _misplaced(block, message)
    if texts or not blocks:
        yield {"role": message.role, "content": "".join(texts)}


def _of_assistant(blocks: list[AnyBlock]) -> dict[str, Any]:
    found: dict[str, Any] = {"role": "assistant", "content": ""}
    for block in blocks:
        match block:
            case TextBlock():
                found["content"] += block.text
            case ThinkingBlock():
                found["reasoning_content"] = found.get("reasoning_content", "") + block.thinking
            case ToolUseBlock():
                function = {"name": block.name, "arguments": json.dumps(block.input)}
                call = {"id": block.id, "type": "function", "function": function}
                found.setdefault("tool_calls", []).append(call)
            case _:
                raise _misplaced(block, Message(role="assistant", content=[]))
    return found


def _misplaced(block: Body, message: Message) -> Failure:
    kind = getattr(block, "type", "")
    text = f"a message of the role {message.role} has no blocks of the type {kind}"
    return invalid("messages", text)


def _failed(body: CountBody, request: Request) -> frozenset[int]:
    """The numbers of the messages that are results of failed calls."""
    failed = {
        block.tool_use_id
        for message in body.messages
        if not isinstance(message.content, str)
        for block in message.content
        if isinstance(block, ToolResultBlock) and block.is_error
    }
    messages = enumerate(request.messages or ())
    return frozenset(n for n, message in messages if message.get("tool_call_id") in failed)


def _tools(body: CountBody) -> ToolUse:
    choice, parallel = body.tool_choice, None
    named = None
    if choice is not None:
        if (choice.name is None) == (choice.type == "tool"):
            text = "tool_choice has a name for the type tool, and only for that"
            raise invalid("tool_choice", text)
        named = choice.name or CHOICES[choice.type]
        if choice.disable_parallel_tool_use is not None:
            parallel = not choice.disable_parallel_tool_use
    tools = [
        Tool(each.name, each.description or "", each.input_schema) for each in body.tools or ()
    ]
    return use_of(tools, named, parallel)
