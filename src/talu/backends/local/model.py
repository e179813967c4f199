"""Implements the backend for models in this process.

It converts requests to tokens for the engine, and the engine's results to events.
"""

import contextlib
import os
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Collection, Generator, Iterable, Sequence
from functools import partial

from talu.backends.local.generation import AsyncLocalGeneration, LocalGeneration, Submitted
from talu.backends.local.prompt import explaining_overflow, prompt_of, stop_notes
from talu.backends.local.replies import reply_of
from talu.backends.local.scores import TextScores
from talu.backends.local.texts import Texts
from talu.checks import check_boolean
from talu.config import FIELDS
from talu.engine.embedding import EmbeddingTicket
from talu.engine.engine import Engine
from talu.engine.model import ModelInfo
from talu.engine.registry import EngineLease, acquire
from talu.engine.ticket import Ticket
from talu.error_text import nearest, shown
from talu.exceptions import StateError, ValidationError
from talu.first_use import loaded
from talu.forks import ForkSafeLock
from talu.protocols import Embedded, Scored
from talu.sampling import resolve_sampling
from talu.types import (
    KV_DTYPES,
    SPECULATIVE,
    WEIGHT_FORMATS,
    Capabilities,
    EmbeddingOptions,
    LocalBackend,
    Request,
)

__all__ = ["SETTINGS", "LocalModel"]

MAX_THREADS = 1024
MAX_MEMORY = MAX_DISK = 2**50  # bytes
SETTINGS = (
    *(name for name in FIELDS if name != "extra_body"),
    "tools",
    "tool_choice",
    "parallel_tool_calls",
)

CONSTRAINING = {"response_format", "max_thinking_tokens", "allow_thinking"}

_dropped: list[EngineLease] = []  # of models that were dropped and not closed


class LocalModel:
    """A model that answers in this process; see ``talu.protocols.Backend``.

    Safe for use by several threads and event loops. Models opened with the same options share an
    engine. A model that is dropped without ``close`` also releases its lease.
    """

    def __init__(
        self,
        ref: str,
        options: LocalBackend | None = None,
        *,
        name: str | None = None,
        offline: bool = False,
    ) -> None:
        """Open the model, or acquire a lease on it if it is already open.

        Args:
            ref: see ``talu.sources.resolve.resolve``.
            options: execution options; None for the defaults of ``LocalBackend``.
            name: the name of the model in answers; None for ``ref``.
            offline: open no socket.

        Raises:
            ValidationError: an option is out of range.
            ModelNotFoundError, ModelError, TokenizerError, ResourceError, IOError: the model
                cannot be opened.
        """
        options = options or LocalBackend()
        _check_options(options)
        check_boolean("offline", offline)
        self._ref = ref
        self._name = ref if name is None else name
        _release_dropped()
        self._lease = acquire(ref, options, offline=offline)
        self._info = self._lease.info
        self._gate = ForkSafeLock(reentrant=True)  # a signal handler may call in
        self._closed = False
        self._texts = Texts(ref, lambda: self._engine, self._track, self._info.notes)
        self._scores = TextScores(
            ref, lambda: self._engine, self._track, self._texts, self._info.notes
        )
        self._tickets: weakref.WeakSet[Ticket | EmbeddingTicket] = weakref.WeakSet()
        self._releasing = weakref.finalize(self, _let_go, self._lease)
        self._releasing.atexit = False

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._name

    @property
    def location(self) -> str:
        """The folder or file of the model."""
        return self._lease.location

    @property
    def max_context_length(self) -> int:
        """Maximum tokens of prompt and answer together."""
        return self._info.context_length

    @property
    def info(self) -> ModelInfo:
        """Device, CPU target, threads, formats, bytes and context of the open model."""
        return self._info

    def generate(self, request: Request) -> LocalGeneration:
        """A generation that has not started."""
        return LocalGeneration(partial(self._submit, request), self._name)

    def agenerate(self, request: Request) -> AsyncLocalGeneration:
        """Like ``generate``, for a reader in an event loop."""
        return AsyncLocalGeneration(partial(self._submit, request), self._name)

    def render(self, request: Request) -> tuple[str, list[int]]:
        """The prompt as text and as token ids, without generating.

        Raises:
            EmptyPromptError: there is no message, text or token.
            TemplateError: the model has no chat template, or the template fails.
        """
        self._check_open()
        prompt = prompt_of(request, self._engine, self._ref)
        return prompt.text, prompt.ids

    def count(self, request: Request) -> int:
        """The number of tokens of the prompt.

        Raises:
            EmptyPromptError: there is no message.
            TemplateError: the model has no chat template, or the template fails.
        """
        if request.messages is None and request.token_ids is None:
            return len(self.tokenize(request.prompt or ""))
        return len(self.render(request)[1])

    def cached_tokens(self, request: Request) -> tuple[int, int]:
        """How many tokens of the prompt are in the prefix cache, and how many it has.

        Raises:
            TaluError: the request has no valid prompt for this model.
        """
        ids = self.render(request)[1]
        return self._engine.cached(ids, request.config.cache_namespace or ""), len(ids)

    def tokenize(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """The token ids of a text, with or without the special tokens at its ends."""
        return self._engine.tokenizer.encode(text, special_tokens=special_tokens)

    def detokenize(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids.

        Raises:
            ValidationError: an id is outside the vocabulary.
        """
        engine = self._engine
        engine.check_ids("ids", ids)
        return engine.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    @property
    def settings(self) -> Collection[str]:
        """All settings, except those of remote models."""
        return SETTINGS

    @property
    def capabilities(self) -> Capabilities:
        """What the open model supports in this version of talu."""
        architecture = self._engine.architecture
        return Capabilities.of(
            self.settings,
            generates=architecture.generates,
            embeds=architecture.embeds,
            reranks=architecture.embedding.problem is None,
        )

    @property
    def embedding_dim(self) -> int:
        """The length of an embedding.

        Raises:
            GenerationError: the model has an unsupported step after pooling.
        """
        return self._texts.dimension

    def embed(
        self, batches: Iterable[Sequence[str]], options: EmbeddingOptions
    ) -> Generator[Embedded]:
        """The vectors of each batch; several texts run in one step of the engine.

        Raises:
            GenerationError: a text is too long for the model, or a vector is not finite.
            EmptyPromptError: a text has no tokens.
            ValidationError: neither the caller nor the model's folder names a pooling, or there is
                no prompt of the given name.
            StateError: the model is closed, or was closed during the call.
        """
        return self._texts.embed(batches, options)

    def aembed(
        self, batches: AsyncIterable[Sequence[str]], options: EmbeddingOptions
    ) -> AsyncGenerator[Embedded]:
        """Like ``embed``, awaited; tokenizing runs in a thread beside the loop."""
        return self._texts.aembed(batches, options)

    def score(
        self, query: str, batches: Iterable[Sequence[str]], options: EmbeddingOptions
    ) -> Generator[Scored]:
        """The scores of each batch of documents; several of them run in one step of the engine.

        Raises:
            GenerationError: query or document is too long for the model, or a score is not finite.
            EmptyPromptError: a text has no tokens.
            ValidationError: neither the caller nor the model's folder names a pooling, or the
                model needs none.
            StateError: the model is closed, or was closed during the call.
        """
        return self._scores.score(query, batches, options)

    def ascore(
        self, query: str, batches: AsyncIterable[Sequence[str]], options: EmbeddingOptions
    ) -> AsyncGenerator[Scored]:
        """Like ``score``, awaited; tokenizing runs in a thread beside the loop."""
        return self._scores.ascore(query, batches, options)

    def close(self) -> None:
        """Cancel the requests of this object and release its engine lease; idempotent.

        Waiting readers get the text so far and the finish reason ``cancelled``.
        """
        with self._gate.lock:
            self._closed = True
            tickets = list(self._tickets)
        for ticket in tickets:
            ticket.cancel()
        self._releasing.detach()
        self._lease.release()

    @property
    def _engine(self) -> Engine:
        """The engine, not stored here, because answers would keep a closed model in memory."""
        self._check_open()
        return self._lease.engine

    def _check_open(self) -> None:
        if self._closed:
            raise StateError(f"{self._ref} is closed; open it again", "STATE_CLOSED")

    def _track(self, ticket: Ticket | EmbeddingTicket) -> None:
        """Cancel this ticket when the model is closed, immediately if it is closed already."""
        with self._gate.lock:
            if self._closed:
                ticket.cancel()
            self._check_open()
            self._tickets.add(ticket)

    def _submit(self, request: Request) -> Submitted:
        with explaining_overflow(request):
            return self._submitted(request)

    def _submitted(self, request: Request) -> Submitted:
        if request.deadline is not None:
            request.deadline.check()
        engine = self._engine
        engine.check_generates()
        prompt = prompt_of(request, engine, self._ref, must_fit=True)
        form = None
        asked = request.config.without_none().given.keys()
        if prompt.calls is not None or CONSTRAINING & asked:
            form = loaded("talu.backends.local.form", "form_of")(request, prompt, engine)
        params = resolve_sampling(
            request.config,
            engine.architecture.generation_defaults,
            end_token_ids=engine.end_token_ids,
            fresh_seed=int.from_bytes(os.urandom(8)) >> 11,  # 53 bits: exact as a double
        )
        shape, reply = reply_of(request, prompt, engine)
        with self._gate.lock:
            self._check_open()
            ticket = engine.submit(
                prompt.ids,
                params,
                form=shape,
                constraint=None if form is None else form.constraint,
                deadline=request.deadline,
            )
            self._tickets.add(ticket)
        stops = stop_notes(params.stop_sequences, engine.tokenizer)
        return Submitted(
            ticket=ticket,
            reply=reply,
            echo=prompt.text if request.echo_prompt else "",
            model=self._name,
            prompt=prompt.text,
            seed=params.seed,
            schema_report=None if form is None else form.report,
            tool_reports={} if form is None else form.tool_reports,
            notes=(*request.notes, *self._info.notes, *prompt.notes, *stops),
            demanded=request.tool_choice if request.demands_call else None,
        )


def _let_go(lease: EngineLease) -> None:
    """Release the lease of a model that was dropped without ``close``.

    A finalizer may run in any thread, including the engine's, and inside any lock, so it must not
    wait. In a forked child, which has no lease, it does not start a thread either. If the system
    cannot start another thread, the lease is released when the next model is opened or dropped.
    """
    if not lease.valid:
        return
    _dropped.append(lease)
    with contextlib.suppress(RuntimeError):  # or the interpreter is ending: the registry closes all
        threading.Thread(target=_release_dropped, name="talu-release", daemon=True).start()


def _release_dropped() -> None:
    """Release the leases of dropped models."""
    while True:
        try:
            lease = _dropped.pop()
        except IndexError:
            return
        lease.release()


def _check_options(options: LocalBackend) -> None:
    gpu_layers, num_threads = options.gpu_layers, options.num_threads
    for name in ("gpu_layers", "num_threads", "kv_cache_bytes", "prefix_cache_bytes"):
        value = getattr(options, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong(name, value, "must be a whole number")
    if gpu_layers > 0:
        raise _wrong(
            "gpu_layers", gpu_layers, "cannot be done: this version of talu runs on the CPU only; "
            "leave it at -1 or 0"
        )  # fmt: skip
    if gpu_layers < -1:
        raise _wrong("gpu_layers", gpu_layers, "must be -1 (all that a GPU can), or 0 (none)")
    if not 0 <= num_threads <= MAX_THREADS:
        raise _wrong("num_threads", num_threads, f"must be 0 (choose) to {MAX_THREADS}")
    memory = options.kv_cache_bytes
    if not 0 <= memory <= MAX_MEMORY:
        raise _wrong("kv_cache_bytes", memory, f"must be 0 (choose) to {MAX_MEMORY}")
    disk = options.prefix_cache_bytes
    if not 0 <= disk <= MAX_DISK:
        raise _wrong("prefix_cache_bytes", disk, f"must be 0 (keep nothing) to {MAX_DISK}")
    formats = {
        "weight_format": (options.weight_format, WEIGHT_FORMATS),
        "kv_dtype": (options.kv_dtype, KV_DTYPES),
    }
    for name, (kind, known) in formats.items():
        if not isinstance(kind, str) or kind not in known:
            close = nearest(kind.lower(), known) if isinstance(kind, str) else ""
            raise _wrong(name, kind, f"must be one of {known}{close}")
    check_boolean("use_mmap", options.use_mmap)
    _check_speculative(options.speculative)


def _check_speculative(value: object) -> None:
    name = value if isinstance(value, str) else ""
    if value is None or name in SPECULATIVE:
        return
    if name == "mtp":
        raise _wrong(
            "speculative", value, "needs draft heads, and this version of talu supports no model "
            "that has them; use 'ngram', or leave it out"
        )  # fmt: skip
    close = nearest(name.lower(), SPECULATIVE) if name else ""
    raise _wrong("speculative", value, f"must be None or one of {SPECULATIVE}{close}")


def _wrong(name: str, value: object, problem: str) -> ValidationError:
    wrong = f"{name}={shown(value)} {problem}"
    return ValidationError(wrong, details={"param": name, "value": value})
