"""OpenAI's protocol for raw completions: encodes requests, and decodes streamed answers.

https://platform.openai.com/docs/api-reference/completions. This module is pure.
"""

from collections.abc import Mapping
from typing import Any

from talu.backends.remote.answers import Decoded, Joined, Malformed, member, raw, real, string
from talu.backends.remote.encoding import Body, Target, set_values, wanted_logprobs, with_extras
from talu.backends.remote.openai_chat import logprobs_of, ours, usage_of
from talu.exceptions import ValidationError
from talu.types import Event, FinishReason, Request, TextDelta, TokenLogprob, Usage
from talu.unicode import check_unicode

__all__ = ["CompletionDecoder", "encode_completion"]


def encode_completion(request: Request, target: Target) -> Body:
    """The body of a streamed raw completion.

    Raises:
        ValidationError: the provider has no raw completions, or takes no token ids.
        TokenizerError: the prompt has a lone surrogate.
    """
    provider = target.provider
    if request.echo_prompt and request.token_ids is not None:
        wrong = "echo_prompt needs a prompt of text: the text of token_ids is not known here"
        raise ValidationError(wrong, "UNSUPPORTED", {"param": "completion_opts"})
    if not provider.completions:
        wrong = f"{provider.name} has no raw completions: use ask or a chat"
        raise ValidationError(wrong, "UNSUPPORTED", {"param": "prompt"})
    values, notes = set_values(target, request, raw=True)
    wanted = wanted_logprobs(values)
    values.pop("top_logprobs", None)
    values.pop("logprobs", None)
    if wanted is not None:
        values["logprobs"] = max(1, wanted)  # llama.cpp reads 0 as no log-probabilities
    body: dict[str, Any] = {"model": target.name, "prompt": _prompt(request, target)}
    body["stream"] = True
    if provider.counts_streams:
        body["stream_options"] = {"include_usage": True}
    body |= values
    extra = request.config.given.get("extra_body")
    return Body("completions", with_extras(body, target, extra_body=extra, given=values), notes)


def _prompt(request: Request, target: Target) -> str | list[int]:
    check_unicode("prompt", request.prompt or "")
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
        self._joined = Joined()

    def push(self, data: Mapping[str, Any]) -> list[Event]:
        """See ``Decoder.push``."""
        if isinstance(data.get("usage"), Mapping):
            self.take_usage(usage_of(data["usage"]))
        if isinstance(data.get("model"), str):
            self.model = string(data["model"], "model")
        choices = data.get("choices")
        if "choices" not in data and self.usage != Usage():
            return []
        if not isinstance(choices, list):
            raise Malformed("an answer without choices")
        events: list[Event] = []
        for choice in ours(choices, self):
            if "text" not in choice and (choice.get("delta") or choice.get("message")):
                raise Malformed("a part of a chat in place of one of a raw completion")
            text, logprobs = self._joined.add(raw(choice.get("text"), "text")), _logprobs(choice)
            if text or logprobs:
                events.append(TextDelta(text, (), logprobs))
            stop = choice.get("stop_reason")
            self.finished(choice.get("finish_reason"))
            if isinstance(stop, str) and self.reason is FinishReason.STOP:
                self.stop_sequence = string(stop, "a stop sequence")
        return events

    def finish(self) -> list[Event]:
        """See ``Decoder.finish``."""
        rest = self._joined.rest()
        return [TextDelta(rest)] if rest else []


def _logprobs(choice: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """The log-probabilities in either of the two shapes; ids of tokens are unknown, -1."""
    found = member(choice, "logprobs")
    if "content" in found:  # llama.cpp, as in chats
        return logprobs_of(choice)
    tokens, values, tops = (
        found.get(name) or [] for name in ("tokens", "token_logprobs", "top_logprobs")
    )
    if not all(isinstance(each, list) for each in (tokens, values, tops)):
        raise Malformed("logprobs that are not lists")
    entries = []
    for number, (token, value) in enumerate(zip(tokens, values, strict=False)):
        top = tops[number] if number < len(tops) else None
        likely = top.items() if isinstance(top, Mapping) else ()
        listed = [(-1, string(text, "a token"), real(each, "logprob")) for text, each in likely]
        listed.sort(key=lambda one: -one[2])
        first = 0.0 if value is None else real(value, "logprob")  # the first token has none
        entries.append(TokenLogprob(-1, string(token, "a token"), first, listed or None))
    return tuple(entries)
