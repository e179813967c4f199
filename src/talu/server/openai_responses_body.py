"""The bodies of OpenAI's responses, which become requests.

https://platform.openai.com/docs/api-reference/responses. The server stores nothing: a conversation
is sent whole, with the items of earlier answers.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from talu.chat.requests import chat_request
from talu.config import merged
from talu.deadline import Deadline
from talu.server.asked import Asked
from talu.server.bodies import MAX_MESSAGES, Body
from talu.server.failures import invalid, naming
from talu.server.openai_fields import (
    AllText,
    Function,
    JsonObjectForm,
    NamedSchema,
    tools_of,
)

__all__ = ["LOGPROBS", "ResponseBody", "asked"]

LOGPROBS = "message.output_text.logprobs"
NAMES = {
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "messages": "input",
    "extra_context": "chat_template_kwargs",
}
Status = Literal["in_progress", "completed", "incomplete"]


class InputText(Body):
    """A part of a message of the user."""

    type: Literal["input_text"]
    text: str


class OutputText(Body):
    """A part of a message of the model, as an earlier answer had it."""

    type: Literal["output_text"]
    text: str
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: list[Any] | None = None


Text = Annotated[InputText | OutputText, Field(discriminator="type")]


class MessageItem(Body):
    """A message."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Text]
    id: str | None = None
    status: Status | None = None


class CallItem(Body):
    """A tool call of an earlier answer."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Status | None = None


class CallOutputItem(Body):
    """The result of a tool call."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputText]
    id: str | None = None
    status: Status | None = None


class ReasoningText(Body):
    """A part of reasoning."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Body):
    """Reasoning of an earlier answer, before the item that it led to."""

    type: Literal["reasoning"]
    content: list[ReasoningText] | None = None
    summary: Annotated[list[Any], Field(max_length=0)] | None = None
    id: str | None = None
    status: Status | None = None


def _kind(item: Any) -> Any:
    """The type of an item; a message may leave it out."""
    return item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", None)


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[CallOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_kind),
]


class FunctionTool(Function):
    """A tool; only functions are supported."""

    type: Literal["function"]


class ChosenFunction(Body):
    """The function that has to be called."""

    type: Literal["function"]
    name: str


class JsonSchemaForm(NamedSchema):
    """JSON that fits a schema."""

    type: Literal["json_schema"]


class TextConfig(Body):
    """The form of the answer."""

    format: (
        Annotated[AllText | JsonObjectForm | JsonSchemaForm, Field(discriminator="type")] | None
    ) = None


class Reasoning(Body):
    """Whether the model reasons."""

    effort: Literal["none"] | None = None


class ResponseBody(Body):
    """The body of a response.

    ``user``, ``safety_identifier``, ``prompt_cache_key`` and the inclusion of encrypted reasoning,
    which is sent as text, are accepted and have no effect.
    """

    model: str
    input: str | Annotated[list[Item], Field(min_length=1, max_length=MAX_MESSAGES)]
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = (
        None
    )
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | ChosenFunction | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    stream: bool | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    background: Literal[False] | None = None
    truncation: Literal["disabled"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer has log-probabilities."""
        return LOGPROBS in (self.include or ())


def asked(body: ResponseBody, deadline: Deadline | None, namespace: str | None) -> Asked:
    """What a body asks for; see ``openai_chat.asked``."""
    if body.top_logprobs and not body.wants_logprobs:
        text = f"top_logprobs needs include=[{LOGPROBS!r}]"
        raise invalid("top_logprobs", text)
    settings: dict[str, Any] = {
        "max_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "logprobs": body.wants_logprobs or None,
        "top_logprobs": body.top_logprobs if body.wants_logprobs else None,
        "response_format": _form(body),
        "cache_namespace": namespace,
    }
    if body.reasoning is not None and body.reasoning.effort == "none":
        settings["allow_thinking"] = False
    choice = body.tool_choice
    named = choice.name if isinstance(choice, ChosenFunction) else choice
    with naming(NAMES):
        config = merged(settings={k: v for k, v in settings.items() if v is not None})
        tools = tools_of(body.tools or (), named, body.parallel_tool_calls)
        messages = list(_messages(body))
        request = chat_request(messages, config, tools=tools, deadline=deadline)
    return Asked(body.model, (request,), bool(body.stream), NAMES)


def _form(body: ResponseBody) -> dict[str, Any] | None:
    match body.text and body.text.format:
        case JsonSchemaForm() as form:
            return form.schema_
        case JsonObjectForm():
            return {"type": "object"}
    return None


def _messages(body: ResponseBody) -> Iterator[dict[str, Any]]:
    """The messages in the form of chat completions: one for each item but reasoning."""
    if body.instructions:
        yield {"role": "system", "content": body.instructions}
    if isinstance(body.input, str):
        yield {"role": "user", "content": body.input}
        return
    reasoning: dict[str, Any] = {}
    for number, item in enumerate(body.input):
        match item:
            case ReasoningItem():
                text = "".join(part.text for part in item.content or ())
                reasoning = {"reasoning_content": text} if text else {}
                continue
            case MessageItem(role="assistant"):
                yield {"role": "assistant", "content": _joined(item.content), **reasoning}
            case CallItem():
                function = {"name": item.name, "arguments": item.arguments}
                call = {"id": item.call_id, "type": "function", "function": function}
                yield {"role": "assistant", "content": None, "tool_calls": [call], **reasoning}
            case _ if reasoning:
                text = "the reasoning before it belongs to a message or a call of the model"
                raise invalid(f"input[{number}]", text)
            case MessageItem():
                yield {"role": item.role, "content": _joined(item.content)}
            case CallOutputItem():
                output = _joined(item.output)
                yield {"role": "tool", "tool_call_id": item.call_id, "content": output}
        reasoning = {}


def _joined(content: str | list[InputText] | list[Text]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
