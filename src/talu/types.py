"""Values passed between the parts of talu: requests, capabilities, embeddings, stop flags.

Backends produce a stream of events for every request; an answer that is not streamed is a
stream read to its end. The events and the options of local models, which are defined in files
of their own, can be imported from here.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, cast, get_args
from weakref import WeakMethod

from talu.config import GenerationConfig
from talu.deadline import Deadline
from talu.error_text import shown
from talu.events import (
    Attempt,
    Done,
    Event,
    FinishReason,
    ReasoningDelta,
    ReasoningEnd,
    Restart,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEvent,
    Usage,
)
from talu.exceptions import StateError, ValidationError
from talu.local_options import (
    KV_DTYPES,
    SPECULATIVE,
    WEIGHT_FORMATS,
    KVDtype,
    LocalBackend,
    Speculative,
    WeightFormat,
)
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
    "ToolCallDelta",
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
Marker = Literal["", "pinned", "archived", "deleted"]
MARKERS: tuple[Marker, ...] = get_args(Marker)


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
        reranking: scores of documents for a query.
    """

    streaming: bool
    tool_calling: bool
    logprobs: bool
    embeddings: bool
    json_schema: bool
    reranking: bool

    @classmethod
    def of(
        cls,
        settings: Collection[str],
        *,
        generates: bool = True,
        embeds: bool = False,
        reranks: bool = False,
    ) -> "Capabilities":
        """The capabilities of a backend that honours these settings; see ``Backend.settings``.

        Args:
            settings: names of settings.
            generates: whether the model generates text at all.
            embeds: whether it embeds texts.
            reranks: whether it scores documents for a query.
        """
        return cls(
            streaming=generates,
            tool_calling=generates and "tools" in settings,
            logprobs=generates and "logprobs" in settings,
            embeddings=embeds,
            json_schema=generates and "response_format" in settings,
            reranking=reranks,
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
        failed_results: the numbers of the messages that are results of failed tool calls.
        prompt: text without a template, used when ``messages`` is None.
        token_ids: replaces the tokenization of ``prompt``.
        continue_from_token_id: appended to the prompt before sampling.
        echo_prompt: the text starts with the prompt's.
        config: the merged settings of call and chat; the backend fills unset fields.
        chat_template: Jinja source that replaces the model's template.
        tools: OpenAI-style tool definitions.
        tool_choice: ``"auto"``, ``"none"`` (no call), ``"required"`` (at least one) or the name of
            the tool that has to be called; None is the backend's default, which is auto.
        parallel_tool_calls: False for at most one call in the answer; None is the backend's
            default.
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
    failed_results: frozenset[int] = frozenset()
    prompt: str | None = None
    token_ids: tuple[int, ...] | None = None
    continue_from_token_id: int | None = None
    echo_prompt: bool = False
    config: GenerationConfig = field(default_factory=GenerationConfig)
    chat_template: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool = True
    notes: tuple[str, ...] = ()
    deadline: Deadline | None = field(default=None, compare=False, repr=False)
    unseen: bool = field(default=False, compare=False, repr=False)
    has_alternatives: bool = field(default=False, compare=False, repr=False)
    asked_before: int | None = field(default=None, compare=False, repr=False)

    @property
    def demands_call(self) -> bool:
        """Whether the answer must have a tool call."""
        return self.tool_choice not in (None, "auto", "none")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that are set, by name, also the template of a chat, and those of tools."""
        more: dict[str, Any] = {
            "chat_template": self.chat_template,
            "tools": self.tools or None,
            "tool_choice": self.tool_choice,
            "parallel_tool_calls": self.parallel_tool_calls,
        }
        given = self.config.without_none().given
        return {**given, **{name: value for name, value in more.items() if value is not None}}
