"""The tables of docs/reference/server.md: what the tests show with the official SDKs."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from anthropic.types import message_count_tokens_params, message_create_params
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from talu.server.anthropic_body import CountBody, MessagesBody
from talu.server.openai_chat import ChatBody
from talu.server.openai_completions import CompletionBody
from talu.server.openai_embeddings import EmbeddingBody
from talu.server.openai_responses_body import ResponseBody

F = TypeVar("F", bound=Callable[..., object])

PATHS: dict[str, tuple[Any, Any]] = {  # path: our body, and the parameters of the SDK
    "/v1/chat/completions": (ChatBody, chat_create_params.CompletionCreateParamsStreaming),
    "/v1/responses": (ResponseBody, response_create_params.ResponseCreateParamsStreaming),
    "/v1/completions": (CompletionBody, completion_create_params.CompletionCreateParamsStreaming),
    "/v1/embeddings": (EmbeddingBody, embedding_create_params.EmbeddingCreateParams),
    "/v1/messages": (MessagesBody, message_create_params.MessageCreateParamsStreaming),
    "/v1/messages/count_tokens": (CountBody, message_count_tokens_params.MessageCountTokensParams),
}
ANSWERS = ("/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/messages")
FEATURES = (
    "whole answers",
    "streams",
    "the SDK's streaming helper",
    "the async SDK",
    "tool calls, also streamed",
    "a choice of tools that is enforced",
    "JSON Schemas, and the SDK's parse helper",
    "reasoning",
    "log-probabilities",
    "several answers",
    "seeds",
    "stop sequences",
    "limits of tokens",
    "cached tokens in the usage",
    "errors that the SDK raises in a stream",
)


def shows(path: str, *features: str) -> Callable[[F], F]:
    """Mark a test that shows features of a path with the official SDK."""
    assert path in PATHS
    assert set(features) <= set(FEATURES)

    def mark(test: F) -> F:
        test.__dict__.setdefault("shows", []).extend((path, feature) for feature in features)
        return test

    return mark


def refused_fields(path: str) -> list[str]:
    """The fields of the SDK that the server does not take."""
    body, parameters = PATHS[path]
    return sorted(parameters.__annotations__.keys() - body.model_fields.keys())


def features_table(tests: Iterable[Any]) -> str:
    """What the tests show, as Markdown."""
    shown = {entry for test in tests for entry in getattr(test, "shows", ())}
    head = " | ".join(f"`{path}`" for path in ANSWERS)
    lines = [f"| | {head} |", "|---" * (len(ANSWERS) + 1) + "|"]
    for feature in FEATURES:
        cells = ("yes" if (path, feature) in shown else "" for path in ANSWERS)
        lines.append(f"| {feature} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fields_table() -> str:
    """The fields that each path takes, as Markdown."""
    lines = ["| path | fields | in addition to the SDK's |", "|---|---|---|"]
    for path, (body, parameters) in PATHS.items():
        known = parameters.__annotations__.keys()
        listed = (
            [name for name in body.model_fields if (name in known) is ours]
            for ours in (True, False)
        )
        cells = (", ".join(f"`{name}`" for name in names) for names in listed)
        lines.append(f"| `{path}` | {' | '.join(cells)} |")
    return "\n".join(lines)
