"""OpenAI's completions, which continue texts without a chat template.

https://platform.openai.com/docs/api-reference/completions.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from talu.chat.answer import Answer
from talu.chat.builder import Token
from talu.chat.requests import raw_request
from talu.deadline import Deadline
from talu.server.asked import Asked
from talu.server.encoders import END, Event, Head, about
from talu.server.failures import Failure, invalid, naming, openai_error
from talu.server.openai_fields import (
    MAX_CHOICES,
    Sampling,
    StreamOptions,
    repeated,
    usage_of,
)
from talu.types import Request, TokenLogprob

__all__ = ["CompletionBody", "CompletionEncoder", "asked"]

MAX_TOKENS = 16  # of an answer without a limit, as in OpenAI's API
NAMES = {"stop_sequences": "stop", "top_logprobs": "logprobs", "token_ids": "prompt"}

Ids = Annotated[list[int], Field(min_length=1)]


class CompletionBody(Sampling):
    """The body of a completion. ``user`` is accepted and has no effect."""

    model: str
    prompt: str | Ids | Annotated[list[str] | list[Ids], Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    logprobs: int | None = None
    echo: bool | None = None
    best_of: Literal[1] | None = None
    user: str | None = None

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The texts, or the lists of token ids, that are continued."""
        prompt: Any = self.prompt
        if isinstance(prompt, str) or isinstance(prompt[0], int):
            return [prompt]
        return list(prompt)


def asked(body: CompletionBody, deadline: Deadline | None, namespace: str | None) -> Asked:
    """What a body asks for; see ``openai_chat.asked``."""
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options", "stream_options needs stream=true")
    if body.echo and body.logprobs is not None:
        raise invalid("logprobs", "logprobs cannot be had together with echo")
    count = len(body.prompts) * (body.n or 1)
    if count > MAX_CHOICES:
        text = f"asks for {count:,} answers together with n, and at most {MAX_CHOICES} are given"
        raise invalid("prompt", f"prompt {text}")
    with naming(NAMES):
        requests = [_request(body, prompt, deadline, namespace) for prompt in body.prompts]
        choices = [choice for each in requests for choice in repeated(each, body.n or 1)]
    return Asked(body.model, tuple(choices), bool(body.stream), NAMES)


def _request(
    body: CompletionBody, prompt: str | list[int], deadline: Deadline | None, namespace: str | None
) -> Request:
    config = body.config(
        max_tokens=MAX_TOKENS if body.max_tokens is None else body.max_tokens,
        logprobs=True if body.logprobs is not None else None,
        top_logprobs=body.logprobs,
        cache_namespace=namespace,
    )
    ids = prompt if isinstance(prompt, list) else None
    request = raw_request(
        "" if isinstance(prompt, list) else prompt,
        None,
        config,
        token_ids=ids,
        continue_from_token_id=None,
        echo_prompt=bool(body.echo),
    )
    return replace(request, deadline=deadline)


class CompletionEncoder:
    """Encodes the answers to one request, whole or in pieces."""

    def __init__(self, body: CompletionBody, head: Head) -> None:
        """Prepare it; the body says what an answer has."""
        options = body.stream_options
        self._counts = options is not None and bool(options.include_usage)
        self._logprobs = body.logprobs is not None
        self._head = head
        self._choices = body.n or 1
        self._sent = [_Sent() for _ in range(len(body.prompts) * self._choices)]

    def whole(self, answers: Sequence[Answer[Any]]) -> dict[str, Any]:
        """The body of the whole answers."""
        choices = []
        for index, answer in enumerate(answers):
            choice = self._choice(index, answer.text, answer)
            choice |= {"finish_reason": str(answer.finish_reason), "talu": about(answer)}
            choices.append(choice)
        return self._body(choices) | {"usage": self._usage(answers)}

    def piece(self, index: int, piece: Token, answer: Answer[Any]) -> list[Event]:
        """The events of a piece of the answer with this index."""
        choice = self._choice(index, str(piece), answer)
        if piece.finish_reason is not None:
            choice |= {"finish_reason": str(piece.finish_reason), "talu": about(answer)}
        return [self._chunk([choice])]

    def end(self, answers: Sequence[Answer[Any]]) -> list[Event]:
        """The events after the last piece of the last answer."""
        counts = [self._chunk([], self._usage(answers))] if self._counts else []
        return [*counts, END]

    def failed(self, failure: Failure) -> list[Event]:
        """The last event of a stream that breaks."""
        return [Event(openai_error(failure))]

    def _usage(self, answers: Sequence[Answer[Any]]) -> dict[str, Any]:
        return usage_of([answer.usage for answer in answers], self._choices)

    def _choice(self, index: int, text: str, answer: Answer[Any]) -> dict[str, Any]:
        logprobs = self._sent[index].logprobs(answer) if self._logprobs else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": None}

    def _body(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"cmpl-{self._head.id}",
            "object": "text_completion",
            "created": self._head.created,
            "model": self._head.model,
            "choices": choices,
        }

    def _chunk(self, choices: list[Any], usage: dict[str, Any] | None = None) -> Event:
        return Event(self._body(choices) | ({"usage": usage} if self._counts else {}))


class _Sent:
    """What has been sent of the log-probabilities of an answer."""

    def __init__(self) -> None:
        self._tokens = 0
        self._offset = 0

    def logprobs(self, answer: Answer[Any]) -> dict[str, Any]:
        """Those of the tokens since the last piece, in the form of completions.

        ``text_offset`` counts the characters of the tokens before.
        """
        known: list[TokenLogprob] = answer.logprobs or []
        new, self._tokens = known[self._tokens :], len(known)
        offsets = []
        for each in new:
            offsets.append(self._offset)
            self._offset += len(each.token_str)
        return {
            "tokens": [each.token_str for each in new],
            "token_logprobs": [each.logprob for each in new],
            "top_logprobs": [
                {text: value for _, text, value in each.top_logprobs or ()} for each in new
            ],
            "text_offset": offsets,
        }
