"""OpenAI's protocol for raw completions: encodes requests, and decodes streamed answers.

https://platform.openai.com/docs/api-reference/completions. This module is pure.
"""

from collections.abc import Mapping
from typing import Any

from talu.backends.remote.answers import Decoded, Malformed, text_of
from talu.backends.remote.encoding import Body, Target, extras, set_values
from talu.backends.remote.openai_chat import REASONS, logprobs_of, usage_of
from talu.exceptions import ValidationError
from talu.types import Event, FinishReason, Request, TextDelta, TokenLogprob, Usage

__all__ = ["CompletionDecoder", "encode_completion"]


def encode_completion(request: Request, target: Target) -> Body:
    """The body of a streamed raw completion.

    Raises:
        ValidationError: the provider has no raw completions, or takes no token ids.
    """
    provider = target.provider
    if not provider.completions:
        wrong = f"{provider.name} has no raw completions: use ask or a chat"
        raise ValidationError(wrong, "UNSUPPORTED", {"param": "prompt"})
    values, notes = set_values(target, request, raw=True)
    wants = values.pop("logprobs", None)
    top = values.pop("top_logprobs", None)
    if wants or (top is not None and wants is not False):
        values["logprobs"] = top or 0
    body: dict[str, Any] = {"model": target.name, "prompt": _prompt(request, target)}
    body["stream"] = True
    if provider.counts_streams:
        body["stream_options"] = {"include_usage": True}
    body |= values
    body |= extras(target, request)
    return Body("completions", body, notes)


def _prompt(request: Request, target: Target) -> str | list[int]:
    ids, more = request.token_ids, request.continue_from_token_id
    if ids is None and more is None:
        return request.prompt or ""
    if not target.provider.token_prompts:
        wrong = f"{target.provider.name} takes a prompt of text only: leave token ids out"
        raise ValidationError(wrong, "UNSUPPORTED", {"param": "completion_opts"})
    if ids is None:
        wrong = (
            "continue_from_token_id needs token_ids here: talu does not know the tokens of a model "
            "behind an endpoint"
        )
        raise ValidationError(wrong, "UNSUPPORTED", {"param": "completion_opts"})
    return [*ids, *(() if more is None else (more,))]


class CompletionDecoder(Decoded):
    """Decodes the chunks of one streamed completion."""

    def __init__(self, target: Target) -> None:
        super().__init__()

    def push(self, data: Mapping[str, Any]) -> list[Event]:
        """The events of one chunk.

        Raises:
            Malformed: it is not a chunk.
        """
        if isinstance(data.get("usage"), Mapping):
            self.usage = usage_of(data["usage"])
        if isinstance(data.get("model"), str):
            self.model = data["model"]
        choices = data.get("choices")
        if "choices" not in data and self.usage != Usage():
            return []
        if not isinstance(choices, list):
            raise Malformed("an answer without choices")
        events: list[Event] = []
        for choice in choices:
            if not isinstance(choice, Mapping):
                raise Malformed("a choice that is not an object")
            text, logprobs = text_of(choice.get("text")), _logprobs(choice.get("logprobs"))
            if text or logprobs:
                events.append(TextDelta(text, (), logprobs))
            self._finish(choice)
        return events

    def _finish(self, choice: Mapping[str, Any]) -> None:
        reason, stop = choice.get("finish_reason"), choice.get("stop_reason")
        if reason is None:
            return
        self.reason = REASONS.get(str(reason))
        if self.reason is None:
            self.reason = FinishReason.STOP
            self.note(f"the server named the finish reason {str(reason)[:100]!r}")
        if isinstance(stop, str) and self.reason is FinishReason.STOP:
            self.stop_sequence = stop


def _logprobs(found: object) -> tuple[TokenLogprob, ...]:
    """The log-probabilities in either of the two shapes; ids of tokens are unknown, -1."""
    if not isinstance(found, Mapping):
        return ()
    if "content" in found:  # llama.cpp, as in chats
        return logprobs_of({"logprobs": found})
    tokens, values = found.get("tokens"), found.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list):
        return ()
    tops = found.get("top_logprobs")
    tops = tops if isinstance(tops, list) else [None] * len(tokens)
    entries = []
    for token, value, top in zip(tokens, values, tops, strict=False):
        others = sorted(top.items(), key=lambda one: -one[1]) if isinstance(top, dict) else ()
        listed = [(-1, str(text), float(logprob)) for text, logprob in others]
        entries.append(TokenLogprob(-1, str(token), float(value or 0), listed or None))
    return tuple(entries)
