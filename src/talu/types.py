"""Values that travel between the parts of talu: requests, events, usage, timings.

Everything below the public classes is a stream of these events; an answer that is not
streamed is a drained stream.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal, NoReturn, get_args
from weakref import WeakMethod

from talu.config import GenerationConfig
from talu.deadline import Deadline
from talu.error_text import shown
from talu.exceptions import StateError, ValidationError

__all__ = [
    "KV_FORMATS",
    "POOLINGS",
    "WEIGHT_FORMATS",
    "Capabilities",
    "Done",
    "EmbeddingOptions",
    "Embeddings",
    "Event",
    "FinishReason",
    "Handle",
    "KVFormat",
    "LocalBackend",
    "Marker",
    "Pooling",
    "ReasoningDelta",
    "Request",
    "StopFlag",
    "TextDelta",
    "Timings",
    "TokenLogprob",
    "ToolCallEvent",
    "Usage",
    "WeightFormat",
    "check_marker",
    "check_stop_flag",
]


Pooling = Literal["last", "mean", "first"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
WeightFormat = Literal["auto", "stored"]
WEIGHT_FORMATS: tuple[WeightFormat, ...] = get_args(WeightFormat)
KVFormat = Literal["auto", "f32", "f16", "bf16"]
KV_FORMATS: tuple[KVFormat, ...] = get_args(KVFormat)
Marker = Literal["", "pinned", "archived", "deleted"]
MARKERS: tuple[Marker, ...] = get_args(Marker)


@dataclass(frozen=True, slots=True)
class LocalBackend:
    """The model runs in this process.

    Attributes:
        gpu_layers: layers on an accelerator; -1 is all that there is room for, 0 is none.
        use_mmap: map the weights instead of reading them into private memory.
        num_threads: 0 takes what affinity and cgroup allow.
        weight_format: ``"stored"`` multiplies with all weights as the checkpoint has them.
            ``"auto"`` makes the f32 matrices of an encoder ``i16``, integers of 16 bits with one
            scale for 128 columns: faster, at a cosine of about 1 - 1e-6 to embeddings in f32.
        kv_format: how keys and values are cached. ``"auto"`` is f32 for weights in f32 and f16 for
            others. A model with keys or values above 65,504 needs ``"bf16"``, or ``"f32"``, which
            takes twice the memory.
    """

    gpu_layers: int = -1
    use_mmap: bool = True
    num_threads: int = 0
    weight_format: WeightFormat = "auto"
    kv_format: KVFormat = "auto"


def check_marker(marker: object) -> None:
    """``ValidationError`` that names the markers of chats when this is none of them."""
    if not isinstance(marker, str) or marker not in MARKERS:
        known = ", ".join(map(repr, MARKERS))
        wrong = f"marker must be one of {known}, got {shown(marker)}"
        raise ValidationError(wrong, details={"param": "marker", "value": marker})


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a model can be asked for, as it is there, files and version of talu considered.

    Attributes:
        streaming: it generates, whole or piece by piece.
        tool_calling: its template shows tools, and tools can be given.
        logprobs: log-probabilities of sampled tokens.
        embeddings: vectors of texts.
        json_schema: answers that follow a schema.
    """

    streaming: bool
    tool_calling: bool
    logprobs: bool
    embeddings: bool
    json_schema: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingOptions:
    """How texts are embedded; see ``Client.embed_batch``.

    Attributes:
        pooling: None takes the model's own.
        prompt: put before each text; None takes that of ``prompt_name``.
        prompt_name: one of the model's own prompts; None takes its default, if it has one.
        deadline: when the call has to be done.
    """

    pooling: Pooling | None = None
    normalize: bool = True
    truncate: bool = False
    prompt: str | None = None
    prompt_name: str | None = None
    deadline: Deadline | None = None


class Embeddings(list[list[float]]):
    """The vectors of several texts: a list of lists, in the order of the texts.

    Attributes:
        truncated: numbers of the texts that were cut to what the model takes, ascending.
    """

    def __init__(self, vectors: Iterable[list[float]] = ()) -> None:
        super().__init__(vectors)
        self.truncated: list[int] = []


class FinishReason(StrEnum):
    """Why a generation ended, in the words of OpenAI's API and two more."""

    STOP = "stop"  # an end token or a stop sequence
    LENGTH = "length"  # max_tokens, or the end of the context
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one generation.

    Attributes:
        prompt_tokens: tokens of the rendered prompt.
        completion_tokens: tokens sampled, the end token and hidden reasoning included.
        cached_tokens: how many of the prompt tokens came from the prefix cache.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations of one generation in milliseconds.

    Attributes:
        queue_ms: from submission to the first step that worked on the prompt.
        prefill_ms: from there to the first sampled token.
        generation_ms: from the first sampled token to the last.
        time_to_first_token_ms: from submission to the first sampled token.
        tokens_per_second: sampled tokens after the first, per second of ``generation_ms``; 0.0
            when fewer than two tokens were sampled.
    """

    queue_ms: float = 0.0
    prefill_ms: float = 0.0
    generation_ms: float = 0.0
    time_to_first_token_ms: float = 0.0
    tokens_per_second: float = 0.0

    @property
    def total_ms(self) -> float:
        """Queue, prefill and generation together."""
        return self.queue_ms + self.prefill_ms + self.generation_ms


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural log-probability of a sampled token under the model's own distribution.

    Attributes:
        token: id of the token.
        token_str: its text when decoded alone.
        logprob: before bias, penalty, temperature and filters.
        top_logprobs: the most likely tokens there as (id, text, log-probability), best first.
    """

    token: int
    token_str: str
    logprob: float
    top_logprobs: list[tuple[int, str, float]] | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer, and the tokens that ended in it.

    ``text`` may be empty: a token can complete no character, or its text may be held back
    because it could start a stop sequence.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the text that the model thinks before it answers."""

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallEvent:
    """A complete call of a tool. ``arguments`` is JSON text as the model wrote it."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Done:
    """The last event of every stream that did not raise.

    Attributes:
        prompt: the rendered prompt, None when the backend does not know it.
        stop_sequence: the stop sequence that matched, if one did.
        notes: what was done differently from what was asked, in words.
        seed: what the sampler drew from, also when none was asked for; None when it is not known.
    """

    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    model: str
    prompt: str | None = None
    stop_sequence: str | None = None
    notes: tuple[str, ...] = ()
    seed: int | None = None


Event = TextDelta | ReasoningDelta | ToolCallEvent | Done


class Handle:
    """Base of objects that belong to this process: copying and pickling them is refused."""

    __slots__ = ()
    _instead: ClassVar[str]  # what to do instead, for the message

    def __reduce__(self) -> NoReturn:
        raise StateError(
            f"{type(self).__name__} cannot be copied or pickled: {self._instead}",
            "STATE_NOT_COPYABLE",
        )


class StopFlag(Handle):
    """Asks generations to stop, from any thread.

    One flag may be given to any number of generations: when it is signalled, those that are under
    way end with what has come and the finish reason ``cancelled``, and so does every one that
    begins before ``reset``.
    """

    __slots__ = ("__weakref__", "_callbacks", "_signalled")
    _instead = "share the flag itself; another process needs one of its own"

    def __init__(self) -> None:
        self._signalled = False
        self._callbacks: dict[int, WeakMethod[Callable[[], object]]] = {}

    def signal(self) -> None:
        """Ask the generations to stop."""
        self._signalled = True
        for reference in list(self._callbacks.values()):
            callback = reference()
            if callback is not None:
                callback()

    def reset(self) -> None:
        """Clear the flag for later generations; those that were asked to stop do stop."""
        self._signalled = False

    def is_set(self) -> bool:
        """Whether ``signal`` was called."""
        return self._signalled

    def __bool__(self) -> bool:
        return self._signalled

    def when_signalled(self, callback: Callable[[], object]) -> None:
        """Call this method when the flag is signalled, at once if it is already; perhaps twice.

        Its object is not kept alive.
        """
        known = self._callbacks
        reference = WeakMethod(callback, lambda gone: known.pop(id(gone), None))
        known[id(reference)] = reference
        if self._signalled:
            callback()


def check_stop_flag(flag: object) -> None:
    """``ValidationError`` when this is neither a ``StopFlag`` nor None."""
    if flag is not None and not isinstance(flag, StopFlag):
        wrong = f"stop_flag must be a StopFlag, got {shown(flag)}"
        raise ValidationError(wrong, details={"param": "stop_flag"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One generation, as a backend gets it: either ``messages`` or a raw prompt.

    Attributes:
        messages: OpenAI-style dictionaries (role, content, tool_calls, tool_call_id).
        prompt: text without a template, used when ``messages`` is None.
        token_ids: replaces the tokenization of ``prompt``.
        continue_from_token_id: appended to the prompt before sampling.
        echo_prompt: the text starts with the prompt's.
        config: what call and chat asked for; fields left unset are the model's to fill.
        chat_template: Jinja source that replaces the model's template.
        tools: OpenAI-style tool definitions.
        add_generation_prompt: end the prompt of messages with the opening of the model's turn.
        stop: when it is signalled, the events end soon with ``Done`` and the reason cancelled.
        notes: what the backend adds to its own, in ``Done``.
        deadline: when the call has to be done; then the events end with ``GenerationError``.
        left: called with the last event, as far as it is known, when the events are closed or
            interrupted while they are read, and so can give it to nobody.
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
    stop: StopFlag = field(default_factory=StopFlag, compare=False, repr=False)
    deadline: Deadline | None = field(default=None, compare=False, repr=False)
    left: Callable[[Done], object] = field(default=lambda done: None, compare=False, repr=False)

    def stop_with(self, flag: StopFlag | None) -> None:
        """Let a flag of the caller stop this request; other requests may have the same flag.

        Raises:
            ValidationError: it is not a ``StopFlag``.
        """
        check_stop_flag(flag)
        if flag is not None:
            flag.when_signalled(self.stop.signal)
