"""Runs the thread that executes the steps of a model for all requests, and handles its failures.

It owns the scheduler and the executor. Other threads put requests into its inbox and read their
mailboxes.
"""

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import accumulate, chain, islice
from math import inf
from queue import Empty, SimpleQueue
from time import perf_counter

from talu.arrays import Floats, Ints, integers, table
from talu.engine.blocks import BlockPool
from talu.engine.embedding import Embedder, EmbeddingRequest
from talu.engine.masking import MaskMaker, with_forced
from talu.engine.model import LoadedModel
from talu.engine.scheduler import Chunk, Limits, Scheduler
from talu.engine.sequence import Sequence
from talu.engine.speculation import Speculation
from talu.engine.ticket import Doorbell
from talu.error_text import NO_THREAD
from talu.exceptions import GenerationError, ResourceError, StateError
from talu.forks import check_process
from talu.graph.sampler import SampleRow, sample
from talu.protocols import Sampled
from talu.types import FinishReason

__all__ = ["Worker"]

MAX_WEIGHT = 2**24  # total weight of all requests: about 700 MB
Request = Sequence | EmbeddingRequest

logger = logging.getLogger("talu.engine")


class Worker:
    """Runs the steps of a loaded model in a separate thread.

    If a step raises an ``Exception``, the requests that have started get a ``GenerationError`` and
    the cache is emptied, because its content is unknown; waiting and later requests continue.
    After any other failure the worker ends: every request gets the error, and ``put`` refuses more.

    Attributes:
        bell: wakes the readers of the mailboxes that the worker writes to.
    """

    def __init__(self, model: LoadedModel, limits: Limits | None, max_requests: int) -> None:
        """Start the thread.

        Args:
            model: closed together with the worker.
            limits: budgets of a step.
            max_requests: waiting requests beyond which new ones are refused.

        Raises:
            ResourceError: the system cannot start another thread.
        """
        self.bell = Doorbell()
        self._name = model.info.model_type
        self._threads = model.info.threads
        self._cache = model.cache
        self._executor = model.executor
        self._weights = model.weights
        self._limits = limits
        self._kept = model.kept
        self._scheduler = self._new_scheduler()
        self._speculation = Speculation() if model.speculative else None
        self._masks = MaskMaker()
        self._embedder = Embedder(model.embedder, model.open_embedder)
        self._inbox: SimpleQueue[Request | None] = SimpleQueue()
        self._open: dict[Request, int] = {}  # unfinished requests and their weights
        # Only for threads that call put. The worker never takes it: a thread inside put may run a
        # signal handler that submits a request and waits for the worker.
        self._gate = threading.RLock()
        self._closed = False
        self._failure: BaseException | None = None
        self._max_requests = max_requests
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="talu-engine", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._end(error)
            raise ResourceError(NO_THREAD) from error

    @property
    def failed(self) -> bool:
        """Whether a failure has ended the worker."""
        return self._failure is not None

    def put(self, request: Request) -> None:
        """Submit a request; its results go to its mailbox.

        Raises:
            ResourceError: too many requests are waiting.
            StateError: the worker was closed or has failed, or was started before a fork.
        """
        self.check_process()
        weight = request.weight  # read once, because that of a generation grows
        with self._gate:
            self._check_open(weight)
            self._open[request] = weight
            request.mailbox.when_ended(partial(self._open.pop, request, None))
            self._inbox.put(request)
            self._check_alive()  # a worker that ends from now on ends everything in _open

    def cached(self, tokens: list[int], namespace: str) -> int:
        """The number of these tokens that are in the prefix cache now."""
        return self._scheduler.cached(tokens, namespace)

    def close(self) -> None:
        """Cancel all requests, end the thread, free weights and cache; idempotent.

        Does not wait if called in the worker's thread, where a finalizer may run.
        """
        if self._process != os.getpid():
            return
        with self._gate:
            first, self._closed = not self._closed, True
            if first:
                self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def check_process(self) -> None:
        """Raise ``StateError`` in a fork of the process that started the thread."""
        check_process(self._process, "the model was opened", "make a new client in this process")

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise StateError(
                f"the engine of this {self._name} model has failed and is closed "
                f"({type(self._failure).__name__}: {self._failure}); close the client and create "
                "a new one, which opens the model again",
                "STATE_ENGINE_FAILED",
            ) from self._failure
        if self._closed:
            raise StateError("the model is closed; open it again", "STATE_CLOSED")

    def _check_open(self, weight: int) -> None:
        self._check_alive()
        waiting = self._inbox.qsize() + self._scheduler.waiting + self._embedder.waiting
        if waiting >= self._max_requests:
            raise ResourceError(
                f"{waiting} requests are already waiting for this model; try again later",
                details={"max_requests": self._max_requests},
            )
        open_weight = sum(list(self._open.values()))
        if open_weight and open_weight + weight > MAX_WEIGHT:
            raise ResourceError(
                f"requests with {open_weight:,} tokens are already waiting for this model; try "
                "again later",
                details={"max_tokens": MAX_WEIGHT},
            )

    def _new_scheduler(self) -> Scheduler[Sequence]:
        pool = BlockPool(self._cache.blocks, self._cache.block_size)
        return Scheduler(pool, self._limits, self._kept.restore if self._kept else None)

    # The methods below run in the worker's thread.

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            while self._collect():
                self._generate()
                self._embed()
                if self._kept is not None:
                    self._kept.copy(self._scheduler.pool)
        except BaseException as error:
            failure = error
            logger.error("the engine of a %s model failed", self._name, exc_info=True)
        finally:
            self._end(failure)

    def _collect(self) -> bool:
        """Receive new requests, sleeping while there is nothing to compute; False to close."""
        with suppress(Empty):
            while True:
                busy = self._generating or self._embedder.busy
                pause = None if self._kept is None else self._kept.pause
                request = self._inbox.get_nowait() if busy else self._inbox.get(timeout=pause)
                if request is None:
                    return False
                request.mailbox.received = True
                if isinstance(request, EmbeddingRequest):
                    self._embedder.add(request)
                else:
                    self._scheduler.add(request)
        self._embedder.drop_cancelled()
        for sequence in [each for each in self._scheduler if each.mailbox.cancelled]:
            self._finish(sequence, FinishReason.CANCELLED)
        for sequence in list(self._scheduler):
            deadline = sequence.mailbox.deadline
            if deadline is not None and deadline.expired:
                sequence.mailbox.end(deadline.error())
                self._scheduler.remove(sequence)
        return True

    @property
    def _generating(self) -> bool:
        return bool(self._scheduler.running or self._scheduler.waiting)

    def _generate(self) -> None:
        try:
            self._step()
        except Exception as error:
            logger.debug("a step failed", exc_info=True)
            old, self._scheduler = list(self._scheduler), self._new_scheduler()
            waiting = [sequence for sequence in old if not sequence.blocks]
            for sequence in waiting if len(waiting) < len(old) else []:
                self._scheduler.add(sequence)
            self._end_lost(error)
        if not self._generating:
            self.bell.ring()  # no further step would do it

    def _embed(self) -> None:
        if not self._embedder.busy:
            return
        try:
            self._embedder.step(beside_generations=self._generating)
        except Exception as error:
            logger.debug("a step of embeddings failed", exc_info=True)
            self._embedder.forget_begun()
            self._end_lost(error)

    def _step(self) -> None:
        chunks = self._scheduler.plan()
        if not chunks:
            return
        for chunk in chunks:
            chunk.job.start()
        if self._speculation:
            chunks = self._speculation.with_drafts(chunks, self._scheduler.room)
        planned, chunks = chunks, with_forced(chunks, self._scheduler.room)
        if self._speculation and chunks != planned:
            self._speculation.forget()
        sampling = [chunk for chunk in chunks if chunk.samples]
        arrays = step_arrays(chunks)
        self.bell.ring()  # after planning, so that readers run while the step releases the GIL
        before = perf_counter()
        self._masks.start(sampling)
        try:
            logits = self._executor.step(*arrays)
        finally:
            masks = self._masks.wait()
        self._scheduler.took(len(arrays[0]), perf_counter() - before)
        self._scheduler.complete(chunks)
        rows = [
            row
            for chunk in sampling
            for row in chunk.job.sample_rows(chunk.draft, masks.allowed.get(chunk.job))
        ]
        sampled = iter(self._sample(logits, rows))
        if self._speculation:
            self._speculation.measured(perf_counter() - before)
        for chunk in sampling:
            results = list(islice(sampled, 1 + len(chunk.draft)))
            wrong = masks.failed.get(chunk.job)
            self._accept(chunk, results if wrong is None else [wrong] * len(results))

    def _sample(self, logits: Floats, rows: list[SampleRow]) -> list[Sampled | GenerationError]:
        """A token for each row, or an error if it cannot be sampled."""
        try:
            return [*sample(logits, rows, num_threads=self._threads)]
        except ValueError as error:
            if len(rows) == 1:
                return [failure(self._why_no_token(logits), error)]
        return [
            sampled
            for number, row in enumerate(rows)
            for sampled in self._sample(logits[number : number + 1], [row])
        ]

    def _why_no_token(self, logits: Floats) -> str:
        numbers = memoryview(logits).cast("B").cast("f")  # type: ignore[arg-type]  # an array is a buffer
        if all(number < inf for number in numbers):  # -inf is a token that cannot occur
            return "no token could be sampled"
        causes = "its weights are damaged, or a value is too large for its format"
        if self._cache.kv_dtype == "f16":
            causes = (
                "its weights are damaged, or a key or value exceeds 65,504, the largest number of "
                "its f16 cache; LocalBackend(kv_dtype='bf16') supports larger ones"
            )
        return f"the model computed NaN or infinite logits: {causes}"

    def _accept(self, chunk: Chunk[Sequence], results: list[Sampled | GenerationError]) -> None:
        """Give a sequence its next tokens: those that were drafted correctly, and one more."""
        sequence = chunk.job
        counted = sequence.drafts is not None  # else the draft is what a grammar forces
        if chunk.draft and counted:
            sequence.mailbox.progress.draft(len(chunk.draft))
        for sampled, drafted in zip(results, (*chunk.draft, None), strict=True):
            correct = isinstance(sampled, Sampled) and sampled.token == drafted
            if correct and counted:
                sequence.mailbox.progress.draft(accepted=1)
            if not self._accept_token(sequence, sampled) or not correct:
                break
            self._scheduler.verified(sequence)

    def _accept_token(self, sequence: Sequence, sampled: Sampled | GenerationError) -> bool:
        """Give a sequence its next token, and say whether it continues; an error ends only it."""
        reason = None
        if not isinstance(sampled, GenerationError):
            try:
                reason = sequence.accept(sampled)
            except Exception as error:
                logger.debug("a token could not be accepted", exc_info=True)
                sampled = failure("a token could not be decoded", error)
        if isinstance(sampled, GenerationError):
            sequence.mailbox.end(sampled)
            self._scheduler.remove(sequence)
            return False
        if reason:
            self._finish(sequence, reason)
            return False
        return True

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        if self._kept is not None:
            self._kept.keep(sequence)
        sequence.end(reason)
        self._scheduler.remove(sequence)

    def _end_lost(self, error: Exception) -> None:
        """End requests that a failure left outside of every queue."""
        kept = {*self._scheduler, *self._embedder.requests}
        for request in list(self._open):
            if request.mailbox.received and request not in kept:
                request.mailbox.end(failure("a step of the model failed", error))

    def _end(self, error: BaseException | None) -> None:
        """End every request and free everything, even if some of it fails."""
        self._closed, self._failure = True, error  # must precede reading the inbox: see put
        for request in list(self._open):
            attempt(partial(end_request, request, error))
        if self._kept is not None and error is None:
            attempt(partial(self._kept.close, self._scheduler.pool))
        closing = self.bell.ring, self._embedder.close, self._masks.close, self._executor.close
        for close in closing:
            attempt(close)
        attempt(self._weights.close)


def attempt(action: Callable[[], object]) -> None:
    """Call ``action`` and log its error, so that the next action is still called."""
    try:
        action()
    except BaseException:
        logger.error("an engine could not end cleanly", exc_info=True)


def end_request(request: Request, error: BaseException | None) -> None:
    """End a request when its worker ends, with an error if there is one."""
    if error is None:
        try:
            request.drop()
            return
        except Exception as wrong:
            logger.debug("a request could not be ended", exc_info=True)
            error = wrong
    request.mailbox.end(failure("the engine failed", error))


def step_arrays(chunks: list[Chunk[Sequence]]) -> tuple[Ints, ...]:
    """The arguments of ``Executor.step`` for a plan."""
    jobs = [chunk.job for chunk in chunks]
    rows = [chunk.tokens for chunk in chunks]
    tokens = list(chain.from_iterable(rows))
    starts = [job.computed for job in jobs]
    spans = [range(start, start + len(row)) for start, row in zip(starts, rows, strict=True)]
    positions = list(chain.from_iterable(spans))
    row_starts = list(accumulate(map(len, rows), initial=0))
    ends = zip(chunks, row_starts[1:], strict=True)
    sampling = [(end - 1 - len(chunk.draft), end) for chunk, end in ends if chunk.samples]
    outputs = list(chain.from_iterable(range(*rows) for rows in sampling))
    tables = table([job.blocks for job in jobs])
    vectors = (integers(values) for values in (tokens, positions, row_starts))
    return (*vectors, tables, integers(outputs))


def failure(what: str, error: BaseException) -> GenerationError:
    """A new error for each reader, because raising an error changes it."""
    result = GenerationError(f"{what}: {type(error).__name__}: {error}")
    result.__cause__ = error
    return result
