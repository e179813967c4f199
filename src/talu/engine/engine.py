"""One thread that steps one model for everybody who asks it.

It owns the scheduler and the executor; all others only put requests into its inbox and read their
tickets. Knows the order of a step and what happens when one fails; the policy is the scheduler's,
the text a sequence's own.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterable
from functools import partial
from itertools import accumulate, chain
from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray

from talu.engine.blocks import BlockPool
from talu.engine.embedding import Embedder, EmbeddingRequest, EmbeddingTicket
from talu.engine.model import LoadedModel
from talu.engine.scheduler import Chunk, Limits, Scheduler
from talu.engine.sequence import Sequence
from talu.engine.stops import StopMatcher
from talu.engine.ticket import Doorbell, Mailbox, Ticket
from talu.exceptions import (
    EmptyPromptError,
    GenerationError,
    ResourceError,
    StateError,
    ValidationError,
)
from talu.graph.sampler import sample
from talu.protocols import Sampled
from talu.sampling import SamplingParams
from talu.types import FinishReason, Pooling

__all__ = ["Engine"]

Ints = NDArray[np.int32]

logger = logging.getLogger("talu.engine")


class Engine:
    """A loaded model at work.

    Requests may come from any threads. The same request with the same seed gives the same tokens,
    whatever else runs, however its prompt is cut, and whatever the prefix cache holds.

    When a step fails, all requests that it had begun get a ``GenerationError`` and the cache is
    emptied, for nobody knows what the step wrote; those that wait, and later ones, go on.

    A process that is forked does not inherit the thread: there, ``submit`` raises.
    """

    def __init__(
        self, model: LoadedModel, limits: Limits | None = None, *, max_requests: int = 10_000
    ) -> None:
        """Start the thread.

        Args:
            model: closed together with the engine.
            limits: budgets of a step.
            max_requests: unfinished requests beyond which new ones are refused.
        """
        self.tokenizer = model.tokenizer
        self.architecture = model.architecture
        self.info = model.info
        self.context_length = model.cache.context_length
        self._cache = model.cache
        self._executor = model.executor
        self._weights = model.weights
        self._limits = limits
        self._scheduler = self._new_scheduler()
        self._embedder = Embedder(model.embedder, model.open_embedder)
        self._inbox: SimpleQueue[Sequence | EmbeddingRequest | None] = SimpleQueue()
        self._bell = Doorbell()
        self._gate = threading.Lock()  # between submit and close
        self._closed = False
        self._max_requests = max_requests
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="talu-engine", daemon=True)
        self._thread.start()

    def submit(
        self, prompt_ids: list[int], params: SamplingParams, *, continues: bool = False
    ) -> Ticket:
        """Ask for a generation.

        Args:
            prompt_ids: the whole prompt.
            params: how to sample and when to stop.
            continues: the answer goes on after a text, so that its leading space counts.

        Raises:
            EmptyPromptError: there is no token to start from.
            GenerationError: the model does not generate (code ``GENERATION_UNSUPPORTED``), or the
                prompt leaves no room for an answer (code
                ``GENERATION_CONTEXT_OVERFLOW``).
            ValidationError: a token id is outside the vocabulary.
            ResourceError: too many requests are waiting.
            StateError: the engine is closed, or this process is a fork of the one that opened it.
        """
        self._check_request(prompt_ids, params)
        self._check_process()
        mailbox = Mailbox(len(prompt_ids), self._bell)
        sequence = Sequence(
            tokens=list(prompt_ids),
            context_length=self.context_length,
            context_note=self._context_note(),
            params=params,
            mailbox=mailbox,
            tokenizer=self.tokenizer,
            decoder=self.tokenizer.decoder(continues=continues),
            stops=StopMatcher(params.stop_sequences),
        )
        self._put(sequence)
        return Ticket(mailbox)

    def submit_embedding(self, texts: list[list[int]], pooling: Pooling) -> EmbeddingTicket:
        """Ask for one vector for each text, not normalised. They run together in few steps.

        A vector does not depend on the other texts, on their order, or on what else runs.

        Args:
            texts: token ids of each.
            pooling: ``"last"``, ``"mean"`` or ``"first"`` of the rows after the last norm.

        Raises:
            EmptyPromptError: a text has no tokens.
            GenerationError: a text is longer than the model takes (code
                ``GENERATION_CONTEXT_OVERFLOW``).
            ValidationError: a token id is outside the vocabulary.
            ResourceError: too many requests are waiting.
            StateError: the engine is closed, or this process is a fork of the one that opened it.
        """
        for number, ids in enumerate(texts):
            self._check_text(number, ids)
        self._check_process()
        request = EmbeddingRequest(texts, pooling, self._embedder.plan.dimension)
        if texts:
            self._put(request)
        else:
            request.mailbox.put(request.vectors)
        return EmbeddingTicket(request)

    def close(self) -> None:
        """Cancel what runs and waits, end the thread, free weights and cache; idempotent.

        Readers get what was sent to them, and a result with the finish reason ``cancelled``. In
        the engine's own thread, where a finalizer may run, nothing is waited for.
        """
        if self._process != os.getpid():
            return
        with self._gate:
            first, self._closed = not self._closed, True
            if first:
                self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def check_ids(self, name: str, ids: Iterable[int]) -> None:
        """Refuse token ids that the model does not have; ``name`` says whose they are.

        Raises:
            ValidationError: there is such an id.
        """
        size = self.architecture.vocabulary_size
        strays = [token for token in ids if not 0 <= token < size]
        if strays:
            raise ValidationError(
                f"{name} has token id {strays[0]}, but the ids of this model are 0 to {size - 1}",
                details={"param": name, "token_ids": strays[:16], "vocabulary_size": size},
            )

    def check_generates(self) -> None:
        """Refuse a generation where the model is an encoder.

        Raises:
            GenerationError: it is (code ``GENERATION_UNSUPPORTED``).
        """
        if not self.architecture.generates:
            raise GenerationError(
                f"a model of type {self.info.model_type!r} does not generate text, it makes "
                "embeddings: use embed or embed_batch",
                "GENERATION_UNSUPPORTED",
                {"model_type": self.info.model_type},
            )

    def _put(self, request: Sequence | EmbeddingRequest) -> None:
        with self._gate:
            self._check_open()
            self._inbox.put(request)

    def _check_text(self, number: int, ids: list[int]) -> None:
        if not ids:
            raise EmptyPromptError(
                f"text {number} has no tokens, so there is nothing to embed",
                details={"index": number},
            )
        self.check_ids(f"text {number}", ids)
        if len(ids) > self.context_length:
            raise GenerationError(
                f"text {number} has {len(ids)} tokens, but the model takes {self.context_length}"
                f"{self._context_note()}; shorten or split it, or cut it off with truncate=True",
                "GENERATION_CONTEXT_OVERFLOW",
                {"index": number, "tokens": len(ids), "context_length": self.context_length},
            )

    def _check_request(self, prompt_ids: list[int], params: SamplingParams) -> None:
        self.check_generates()
        if not prompt_ids:
            raise EmptyPromptError("the prompt has no tokens; give some text to start from")
        self.check_ids("prompt", prompt_ids)
        self.check_ids("logit_bias", params.logit_bias)
        self.check_ids("stop_token_ids", params.stop_token_ids)
        count = len(prompt_ids)
        if count >= self.context_length:
            raise GenerationError(
                f"the prompt has {count} tokens, but the context holds {self.context_length} and "
                f"the answer needs at least one{self._context_note()}; shorten the prompt",
                "GENERATION_CONTEXT_OVERFLOW",
                {"prompt_tokens": count, "context_length": self.context_length},
            )

    def _context_note(self) -> str:
        whole = self._cache.reduced_from
        return f" (the model was made for {whole}, memory allows less)" if whole else ""

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise StateError(
                "the model was opened before this process was forked, and its thread stayed in "
                "the parent; open it in this process"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("the model is closed; open it again", "STATE_CLOSED")
        waiting = self._inbox.qsize() + self._scheduler.waiting + self._embedder.waiting
        if waiting >= self._max_requests:
            raise ResourceError(
                f"{waiting} requests wait for this model already; try again later",
                details={"max_requests": self._max_requests},
            )

    def _new_scheduler(self) -> Scheduler[Sequence]:
        pool = BlockPool(self._cache.blocks, self._cache.block_size)
        return Scheduler(pool, self._limits)

    def _run(self) -> None:
        while self._collect():
            try:
                self._step()
            except Exception as error:
                logger.debug("a step failed", exc_info=True)
                self._fail(error)
            if not self._generating:
                self._bell.ring()  # no step follows that would
            try:
                self._embed()
            except Exception as error:
                logger.debug("a step of embeddings failed", exc_info=True)
                self._embedder.drop_begun(partial(failure, "a step of the model failed", error))
        for sequence in list(self._scheduler):
            self._finish(sequence, FinishReason.CANCELLED)
        self._bell.ring()
        self._embedder.close()
        self._executor.close()
        self._weights.close()

    def _collect(self) -> bool:
        """Take in new requests, sleeping while there is nothing else to do; False to close."""
        with contextlib.suppress(Empty):
            while True:
                busy = self._generating or self._embedder.busy
                request = self._inbox.get_nowait() if busy else self._inbox.get()
                if request is None:
                    return False
                if isinstance(request, EmbeddingRequest):
                    self._embedder.add(request)
                else:
                    self._scheduler.add(request)
        self._embedder.drop_cancelled()
        for sequence in [each for each in self._scheduler if each.mailbox.cancelled]:
            self._finish(sequence, FinishReason.CANCELLED)
        return True

    @property
    def _generating(self) -> bool:
        return bool(self._scheduler.running or self._scheduler.waiting)

    def _embed(self) -> None:
        if self._embedder.busy:
            self._embedder.step(beside_generations=self._generating)

    def _step(self) -> None:
        chunks = self._scheduler.plan()
        if not chunks:
            return
        for chunk in chunks:
            chunk.job.start()
        sampling = [chunk.job for chunk in chunks if chunk.samples]
        arrays = step_arrays(chunks)
        self._bell.ring()  # so late, for the readers run while the step does not hold the GIL
        logits = self._executor.step(*arrays)
        self._scheduler.complete(chunks)
        for sequence, sampled in zip(sampling, sample_each(logits, sampling), strict=True):
            if isinstance(sampled, GenerationError):
                self._scheduler.remove(sequence)
                sequence.mailbox.put(sampled)
            elif reason := sequence.accept(sampled):
                self._finish(sequence, reason)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        self._scheduler.remove(sequence)
        sequence.end(reason)

    def _fail(self, error: Exception) -> None:
        """End everything that holds blocks, and begin with an empty cache."""
        old, self._scheduler = list(self._scheduler), self._new_scheduler()
        begun = [sequence for sequence in old if sequence.blocks] or old
        for sequence in old:
            if sequence in begun:
                sequence.mailbox.put(failure("a step of the model failed", error))
            else:
                self._scheduler.add(sequence)


def step_arrays(chunks: list[Chunk[Sequence]]) -> tuple[Ints, ...]:
    """The arguments of ``Executor.step`` for a plan."""
    jobs = [(chunk.job, chunk.job.computed, chunk.job.computed + chunk.count) for chunk in chunks]
    tokens = list(chain.from_iterable(job.tokens[start:stop] for job, start, stop in jobs))
    positions = list(chain.from_iterable(range(start, stop) for _, start, stop in jobs))
    row_starts = list(accumulate((chunk.count for chunk in chunks), initial=0))
    width = max(len(job.blocks) for job, *_ in jobs)
    tables = [job.blocks + [-1] * (width - len(job.blocks)) for job, *_ in jobs]
    ends = zip(chunks, row_starts[1:], strict=True)
    outputs = [end - 1 for chunk, end in ends if chunk.samples]
    arrays = (tokens, positions, row_starts, tables, outputs)
    return tuple(np.array(values, dtype=np.int32) for values in arrays)


def sample_each(
    logits: NDArray[np.float32], sequences: list[Sequence]
) -> list[Sampled | GenerationError]:
    """A token for each sequence; one that cannot be sampled gets an error of its own."""
    rows = [sequence.sample_row() for sequence in sequences]
    try:
        return [*sample(logits, rows)]
    except ValueError as error:
        if len(rows) == 1:
            return [failure("no token could be sampled", error)]
    return [
        sampled
        for number, sequence in enumerate(sequences)
        for sampled in sample_each(logits[number : number + 1], [sequence])
    ]


def failure(what: str, error: Exception) -> GenerationError:
    """An error for one reader; each gets its own, for raising one changes it."""
    result = GenerationError(f"{what}: {type(error).__name__}: {error}")
    result.__cause__ = error
    return result
