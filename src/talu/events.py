"""The events of which every answer consists, and the values that they carry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # loaded when an answer is asked to have a form
    from talu.structured.report import SchemaReport

__all__ = [
    "Attempt",
    "Done",
    "Event",
    "FinishReason",
    "ReasoningDelta",
    "ReasoningEnd",
    "Restart",
    "TextDelta",
    "Timings",
    "TokenLogprob",
    "ToolCallDelta",
    "ToolCallEvent",
    "Usage",
]


class FinishReason(StrEnum):
    """Why a generation ended: the values of OpenAI's API and two more."""

    STOP = "stop"  # an end token or a stop sequence
    LENGTH = "length"  # max_tokens, or the end of the context
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one generation; None for a count that the backend does not report.

    Attributes:
        prompt_tokens: tokens of the rendered prompt.
        completion_tokens: sampled tokens, including the end token and hidden reasoning.
        cached_tokens: the part of the prompt tokens that came from the prefix cache.
        reasoning_tokens: the part of the completion tokens that a server counts as reasoning.
        draft_tokens: tokens that speculation guessed and the model checked; None without it.
        accepted_draft_tokens: the part of them that the model confirmed: completion tokens that
            took no step of their own.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    draft_tokens: int | None = None
    accepted_draft_tokens: int | None = None

    @property
    def total_tokens(self) -> int | None:
        """Prompt and completion together."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations of one generation in milliseconds; None for one that is not known.

    Attributes:
        queue_ms: from submission to the first step that processed the prompt.
        prefill_ms: from there to the first sampled token.
        generation_ms: from the first sampled token to the last.
        time_to_first_token_ms: from submission to the first sampled token.
        tokens_per_second: sampled tokens after the first, per second of ``generation_ms``; None
            when fewer than two tokens were sampled.
    """

    queue_ms: float | None = None
    prefill_ms: float | None = None
    generation_ms: float | None = None
    time_to_first_token_ms: float | None = None
    tokens_per_second: float | None = None

    @property
    def total_ms(self) -> float | None:
        """Queue, prefill and generation together."""
        if self.queue_ms is None or self.prefill_ms is None or self.generation_ms is None:
            return None
        return self.queue_ms + self.prefill_ms + self.generation_ms


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural log-probability of a sampled token under the model's own distribution.

    Attributes:
        token: id of the token.
        token_str: its text when decoded alone.
        logprob: before bias, penalty, temperature and filters.
        top_logprobs: the most likely tokens at that position as (id, text, log-probability), best
            first.
    """

    token: int
    token_str: str
    logprob: float
    top_logprobs: list[tuple[int, str, float]] | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer, and the tokens that ended in it.

    ``text`` may be empty: a token may not complete a character, or its text may be held back
    because it could start a stop sequence.

    Attributes:
        echo: whether it repeats the prompt, for ``echo_prompt``, and was not generated.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    echo: bool = False


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the model's reasoning.

    Attributes:
        provider: the provider of a remote model; None for a local model. Reasoning is sent back to
            its own provider only.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class ReasoningEnd:
    """The end of one block of reasoning of a remote model; further reasoning is another block.

    Attributes:
        provider_data: what the provider wants back unchanged with the block, such as a signature.
            Plain JSON values; ``"provider"`` names the provider, and ``"text"`` is not a key.
    """

    provider_data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call that is being written; ``ToolCallEvent`` ends the call.

    All pieces of a call have its id and its name. A backend that gets only whole calls sends none.

    Attributes:
        arguments: the next piece of the JSON text; that of the first event may be empty.
        tokens: ids of the tokens that ended in this piece.
        logprobs: their log-probabilities.
    """

    call_id: str
    name: str
    arguments: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallEvent:
    """A complete tool call.

    Attributes:
        arguments: JSON text as the model wrote it: the joined pieces, if it came in pieces.
        provider_data: as in ``ReasoningEnd``; None when the provider wants nothing back.
    """

    call_id: str
    name: str
    arguments: str
    provider_data: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A model that a router asked, or wanted to ask, for an answer; or one of several requests.

    Attributes:
        model: the name of the model.
        location: its folder or address; None if unknown.
        started_ms: milliseconds from the start of the request to that of the attempt.
        duration_ms: to its last token, or to its failure.
        first_token_ms: from the start of the attempt to its first token; None if there was none.
        error: code of the error that ended it, ``UNSUITABLE`` for a model that cannot do what the
            request asks, ``SLOWER`` for one that was overtaken by another,
            ``INCOMPLETE`` for one whose answer in a ``race`` was filtered, cut or empty; None for
            the attempt that gave the answer.
        reason: the error's message.
    """

    model: str
    location: str | None = None
    started_ms: float = 0.0
    duration_ms: float = 0.0
    first_token_ms: float | None = None
    error: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The last event of every stream that did not raise.

    Attributes:
        prompt: the rendered prompt, None when the backend does not know it.
        stop_sequence: the stop sequence that matched, if one did.
        notes: sentences that describe each deviation from the request.
        seed: the sampler's seed, given or drawn; None when it is unknown.
        attempts: the models that a router asked, and each repeated request, in order.
        schema_report: what became of the keywords of ``response_format``; None without one.
        tool_reports: the same for the schema of each tool by its name; the arguments of those that
            are missing are only checked.
    """

    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    model: str
    prompt: str | None = None
    stop_sequence: str | None = None
    notes: tuple[str, ...] = ()
    seed: int | None = None
    attempts: tuple[Attempt, ...] = ()
    schema_report: "SchemaReport | None" = None
    tool_reports: "Mapping[str, SchemaReport]" = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Restart:
    """All events before this one are void: another model answers.

    Only a router sends it, and only for a request with ``unseen``.
    """


Event = TextDelta | ReasoningDelta | ReasoningEnd | ToolCallDelta | ToolCallEvent | Restart | Done
