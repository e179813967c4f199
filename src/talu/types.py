"""Values passed between the parts of talu: requests, events, usage, timings.

Backends produce a stream of events for every request; an answer that is not streamed is a
stream read to its end.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, cast, get_args
from weakref import WeakMethod

from talu.config import GenerationConfig
from talu.deadline import Deadline
from talu.error_text import shown
from talu.exceptions import StateError, ValidationError
from talu.other_names import no_attribute

__all__ = [
    "KV_DTYPES",
    "POOLINGS",
    "SPECULATIVE",
    "WEIGHT_FORMATS",
    "Attempt",
    "Capabilities",
    "Done",
    "EmbeddingOptions",
    "Embeddings",
    "Event",
    "FinishReason",
    "Handle",
    "KVDtype",
    "LocalBackend",
    "Marker",
    "Pooling",
    "ReasoningDelta",
    "ReasoningEnd",
    "Request",
    "Restart",
    "Speculative",
    "StopFlag",
    "Stopped",
    "TextDelta",
    "Timings",
    "TokenLogprob",
    "ToolCallEvent",
    "Usage",
    "WeightFormat",
    "check_marker",
    "check_stop_flag",
    "is_iterable",
]


Pooling = Literal["last", "mean", "first"]


class _Default(str):
    """A default that is equal to a text, and differs from the same text given by a caller."""

    __slots__ = ()


DEFAULT_POOLING = cast("Pooling", _Default("last"))
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
WeightFormat = Literal[
    "auto", "stored", "q8", "q4", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k_s", "q4_k_m",
    "q5_k_s", "q5_k_m", "q6_k",
]  # fmt: skip
WEIGHT_FORMATS: tuple[WeightFormat, ...] = get_args(WeightFormat)
KVDtype = Literal["auto", "f32", "f16", "bf16", "q8"]
KV_DTYPES: tuple[KVDtype, ...] = get_args(KVDtype)
Speculative = Literal["ngram"]
SPECULATIVE: tuple[Speculative, ...] = get_args(Speculative)
Marker = Literal["", "pinned", "archived", "deleted"]
MARKERS: tuple[Marker, ...] = get_args(Marker)


@dataclass(frozen=True, slots=True)
class LocalBackend:
    """The model runs in this process.

    Attributes:
        gpu_layers: layers on an accelerator; -1 is as many as fit, 0 is none.
        use_mmap: map the weights instead of reading them into private memory.
        num_threads: 0 uses as many as affinity and cgroup allow.
        weight_format: ``"stored"`` uses all weights in the checkpoint's format. ``"auto"`` converts
            the f32 matrices of an encoder to ``i16``, 16-bit integers with one scale per 128
            columns: faster, with a cosine similarity of about 1 - 1e-6 to embeddings in f32. A
            quantised matrix that no format can hold exactly is ``i16`` with ``"auto"``, and f32
            with ``"stored"``.
            ``"q8"`` and ``"q4"`` quantise a model that is not quantised yet, to 8 bits a weight,
            and to 4.5 with 8 for what matters most: less memory, faster generation. The first open
            takes from seconds to minutes; the result is kept in the cache. ``"q4_0"`` to
            ``"q6_k"`` are the formats of GGUF files with these names.
        kv_dtype: format of cached keys and values. ``"auto"`` is f32 for f32 weights and f16 for
            others. A model with keys or values above 65,504 needs ``"bf16"``, or ``"f32"``, which
            takes twice the memory. ``"q8"`` takes little more than half of that of f16: 8 bits a
            number, and a scale for each position of a head.
        speculative: ``"ngram"`` guesses the next tokens from earlier text, and checks several of
            them in one step: the same tokens sooner, where an answer repeats its prompt or itself.
            None, the default, is off.
        prefix_cache_bytes: disk space for computed beginnings of prompts, so that a chat of an
            earlier process continues at once; 0, the default, keeps none. The files are in the
            cache folder, readable only by their owner; those used longest ago are removed.
    """

    gpu_layers: int = -1
    use_mmap: bool = True
    num_threads: int = 0
    weight_format: WeightFormat = "auto"
    kv_dtype: KVDtype = "auto"
    speculative: Speculative | None = None
    prefix_cache_bytes: int = 0


def check_marker(marker: object) -> None:
    """``ValidationError`` if this is not a marker of chats."""
    if not isinstance(marker, str) or marker not in MARKERS:
        known = ", ".join(map(repr, MARKERS))
        wrong = f"marker must be one of {known}, got {shown(marker)}"
        raise ValidationError(wrong, details={"param": "marker", "value": marker})


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The features of a model that this version of talu supports with the model's files.

    Attributes:
        streaming: text generation, streamed or not.
        tool_calling: tools, which also need support by the chat template.
        logprobs: log-probabilities of sampled tokens.
        embeddings: embeddings of texts.
        json_schema: answers that follow a schema.
    """

    streaming: bool
    tool_calling: bool
    logprobs: bool
    embeddings: bool
    json_schema: bool

    @classmethod
    def of(
        cls, settings: Collection[str], *, generates: bool = True, embeds: bool = False
    ) -> "Capabilities":
        """The capabilities of a backend that honours these settings; see ``Backend.settings``.

        Args:
            settings: names of settings.
            generates: whether the model generates text at all.
            embeds: whether it embeds texts.
        """
        return cls(
            streaming=generates,
            tool_calling=generates and "tools" in settings,
            logprobs=generates and "logprobs" in settings,
            embeddings=embeds,
            json_schema=generates and "response_format" in settings,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingOptions:
    """Options of embedding texts; see ``Client.embed_batch``.

    Attributes:
        pooling: None uses the model's.
        pooling_given: the caller named it; otherwise it is the default.
        prompt: prefix of each text; None uses the prompt called ``prompt_name``.
        prompt_name: one of the model's prompts; None uses its default, if it has one.
        deadline: the time by which the call has to finish.
    """

    pooling: Pooling | None = None
    normalize: bool = True
    truncate: bool = False
    prompt: str | None = None
    prompt_name: str | None = None
    deadline: Deadline | None = None
    pooling_given: bool = False


class Embeddings(list[list[float]]):
    """The embeddings of several texts: a list of lists, in the order of the texts.

    Attributes:
        truncated: indices of the texts cut to the model's maximum length, ascending.
        notes: sentences that describe each deviation from the request, and each setting in the
            model's files that is not used.
    """

    def __init__(self, vectors: Iterable[list[float]] = ()) -> None:
        super().__init__(vectors)
        self.truncated: list[int] = []
        self.notes: tuple[str, ...] = ()


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
class ToolCallEvent:
    """A complete tool call.

    Attributes:
        arguments: JSON text as the model wrote it.
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


@dataclass(frozen=True, slots=True)
class Restart:
    """All events before this one are void: another model answers.

    Only a router sends it, and only for a request with ``unseen``.
    """


Event = TextDelta | ReasoningDelta | ReasoningEnd | ToolCallEvent | Restart | Done


def is_iterable(value: Any) -> bool:
    """Whether a loop over the value is possible, which its class does not always say."""
    try:
        iter(value)
    except TypeError:  # such as an array of NumPy without dimensions
        return False
    return True


class Handle:
    """Base of objects that belong to this process and cannot be copied or pickled."""

    __slots__ = ()
    _instead: ClassVar[str]  # the alternative, for the error message

    if not TYPE_CHECKING:  # a type checker would take any name for granted

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name)

    def __reduce__(self) -> NoReturn:
        raise StateError(
            f"{type(self).__name__} cannot be copied or pickled: {self._instead}",
            "STATE_NOT_COPYABLE",
        )


class StopFlag(Handle):
    """Stops generations, from any thread.

    One flag may be given to any number of generations. When it is signalled, running generations
    end with the text so far and the finish reason ``cancelled``, and so does every generation that
    starts before ``reset``.
    """

    __slots__ = ("__weakref__", "_callbacks", "_signalled")
    _instead = "share the flag itself; another process needs a separate one"

    def __init__(self) -> None:
        self._signalled = False
        self._callbacks: dict[int, WeakMethod[Callable[[], object]]] = {}

    def signal(self) -> None:
        """Stop the generations."""
        self._signalled = True
        for reference in list(self._callbacks.values()):
            callback = reference()
            if callback is not None:
                callback()

    def reset(self) -> None:
        """Clear the flag for later generations; those already signalled still stop."""
        self._signalled = False

    def is_set(self) -> bool:
        """Whether ``signal`` was called."""
        return self._signalled

    def __bool__(self) -> bool:
        return self._signalled

    def when_signalled(self, callback: Callable[[], object]) -> None:
        """Call this method when the flag is signalled, or at once if it already is; perhaps twice.

        The flag holds a weak reference to the method's object.
        """
        known = self._callbacks
        reference = WeakMethod(callback, lambda gone: known.pop(id(gone), None))
        known[id(reference)] = reference
        if self._signalled:
            callback()


class Stopped(Exception):
    """A stop flag ended the wait for a model that is being opened."""


def check_stop_flag(flag: object) -> None:
    """``ValidationError`` if this is neither a ``StopFlag`` nor None."""
    if flag is not None and not isinstance(flag, StopFlag):
        wrong = f"stop_flag must be a StopFlag, got {shown(flag)}"
        raise ValidationError(wrong, details={"param": "stop_flag"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request for one generation to a backend, with either ``messages`` or a raw prompt.

    Attributes:
        messages: OpenAI-style dictionaries (role, content, tool_calls, tool_call_id). A backend
            uses only the ``provider_data`` of its own provider, and leaves out the reasoning of
            another; see ``talu.chat.messages.messages_from_items``.
        prompt: text without a template, used when ``messages`` is None.
        token_ids: replaces the tokenization of ``prompt``.
        continue_from_token_id: appended to the prompt before sampling.
        echo_prompt: the text starts with the prompt's.
        config: the merged settings of call and chat; the backend fills unset fields.
        chat_template: Jinja source that replaces the model's template.
        tools: OpenAI-style tool definitions.
        add_generation_prompt: end the prompt of messages with the start of the model's turn.
        notes: notes that the backend includes in those of ``Done``.
        deadline: the time by which the call has to finish, or fail with ``GenerationError``.
        unseen: nobody sees the answer before its end, so that a router may ask another model when
            it breaks; see ``Restart``.
        has_alternatives: another model is asked if this one fails, so that a backend repeats a
            failed attempt only if it was told to.
        asked_before: how often the backend has sent this request before. Its caller waits when the
            server names a time, so that the backend raises such a failure at once. None when the
            backend has to wait.
    """

    messages: tuple[Mapping[str, Any], ...] | None = None
    prompt: str | None = None
    token_ids: tuple[int, ...] | None = None
    continue_from_token_id: int | None = None
    echo_prompt: bool = False
    config: GenerationConfig = field(default_factory=GenerationConfig)
    chat_template: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    add_generation_prompt: bool = True
    notes: tuple[str, ...] = ()
    deadline: Deadline | None = field(default=None, compare=False, repr=False)
    unseen: bool = field(default=False, compare=False, repr=False)
    has_alternatives: bool = field(default=False, compare=False, repr=False)
    asked_before: int | None = field(default=None, compare=False, repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that are set, by name, also the template of a chat."""
        given = self.config.without_none().given
        template = self.chat_template
        return given if template is None else {**given, "chat_template": template}
