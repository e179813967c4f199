"""The fields that several of OpenAI's protocols share: sampling, tools, forms, usage."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from talu.config import GenerationConfig, merged
from talu.exceptions import ValidationError
from talu.server.bodies import Body
from talu.server.tool_use import use_of
from talu.tools.definition import Tool
from talu.tools.use import ToolUse
from talu.types import Request, TokenLogprob, Usage

__all__ = [
    "AllText",
    "Function",
    "FunctionName",
    "FunctionTool",
    "JsonObjectForm",
    "JsonSchemaForm",
    "NamedSchema",
    "Sampling",
    "StreamOptions",
    "repeated",
    "token_entries",
    "tools_of",
    "usage_of",
]

MAX_CHOICES = 128
MAX_SEED = 2**64
ANY_OBJECT = {"type": "object", "properties": {}}


class Sampling(Body):
    """How tokens are chosen; what is not given is the model's own default, or talu's.

    ``top_k``, ``min_p``, ``repetition_penalty``, ``stop_token_ids`` and ``max_thinking_tokens`` are
    extensions; see the reference of ``GenerationConfig``.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    logit_bias: dict[str, float] | None = None
    max_thinking_tokens: int | None = None

    def config(self, **more: Any) -> GenerationConfig:
        """The settings that are given.

        Args:
            more: further settings; None for one that is not given.

        Raises:
            ValidationError: a value is out of range.
        """
        given = {name: getattr(self, name) for name in Sampling.model_fields}
        stop, bias = given.pop("stop"), given.pop("logit_bias")
        if stop is not None:
            given["stop_sequences"] = [stop] if isinstance(stop, str) else stop
        if bias is not None:
            given["logit_bias"] = _bias(bias)
        given |= more
        return merged(settings={name: v for name, v in given.items() if v is not None})


def _bias(bias: dict[str, float]) -> dict[int, float]:
    if not all(token.isascii() and token.isdecimal() and len(token) < 12 for token in bias):
        wrong = "logit_bias must be an object from token ids, such as '42', to numbers"
        raise ValidationError(wrong, details={"param": "logit_bias"})
    return {int(token): value for token, value in bias.items()}


class StreamOptions(Body):
    """What a stream has in addition."""

    include_usage: bool | None = None


def repeated(request: Request, count: int) -> tuple[Request, ...]:
    """A request for each choice: the first has the seed that is given, the others the next ones."""
    seed = request.config.seed
    if seed is None:
        return (request,) * count
    configs = [request.config.override(seed=(seed + n) % MAX_SEED) for n in range(count)]
    return tuple(replace(request, config=config) for config in configs)


class Function(Body):
    """A function that the model may call; ``strict`` has no effect: calls always fit the schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Body):
    """A tool; only functions are supported."""

    type: Literal["function"]
    function: Function


class FunctionName(Body):
    """The name of a function."""

    name: str


def tools_of(
    functions: Sequence[Function], choice: str | None = None, parallel: bool | None = None
) -> ToolUse:
    """The use of tools that a body describes; see ``tool_use.use_of``."""
    tools = [
        Tool(each.name, each.description or "", each.parameters or ANY_OBJECT) for each in functions
    ]
    return use_of(tools, choice, parallel)


class NamedSchema(Body):
    """A JSON Schema, which is always enforced; ``strict`` has no effect."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class AllText(Body):
    """Any text."""

    type: Literal["text"]


class JsonObjectForm(Body):
    """A JSON object."""

    type: Literal["json_object"]


class JsonSchemaForm(Body):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


def usage_of(usages: Sequence[Usage | None], choices: int | None = None) -> dict[str, Any]:
    """The token counts of all choices; a count that is not known is None.

    Args:
        usages: of the choices.
        choices: how many choices have a prompt in common, which counts once; None for all.
    """
    known = [usage or Usage() for usage in usages]
    prompts = known[:: choices or len(known)]
    prompt = _sum([usage.prompt_tokens for usage in prompts])
    completion = _sum([usage.completion_tokens for usage in known])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": _sum([prompt, completion]),
        "prompt_tokens_details": {"cached_tokens": _sum([u.cached_tokens for u in prompts])},
        "completion_tokens_details": {
            "reasoning_tokens": _sum([usage.reasoning_tokens for usage in known])
        },
    }


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def token_entries(logprobs: list[TokenLogprob]) -> list[dict[str, Any]]:
    """The log-probabilities of tokens in the form of chat completions and responses."""
    return [
        {
            **_entry(each.token_str, each.logprob),
            "top_logprobs": [_entry(text, value) for _, text, value in each.top_logprobs or ()],
        }
        for each in logprobs
    ]


def _entry(text: str, logprob: float) -> dict[str, Any]:
    """A token; its bytes are not known if it is a part of a character."""
    data = None if "\ufffd" in text else list(text.encode())
    return {"token": text, "logprob": logprob, "bytes": data}
