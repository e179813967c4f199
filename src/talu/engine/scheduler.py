"""Decides which sequences run in the next step, and how many rows each of them gets.

A job has its tokens and the number of them that are in the KV cache. One pending token is a decode
row; more are prefill, which is computed in chunks.

Waiting jobs are admitted in order of arrival, as soon as their tokens fit into the cache. Every job
with one pending token gets a row in every step. The other rows go to prompts, oldest first; their
number is smaller while other jobs decode, so that a long prompt does not delay answers for long. If
the cache is full, the youngest job releases its blocks and is recomputed later.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from talu.engine.blocks import BlockPool

__all__ = ["Chunk", "Job", "Limits", "Scheduler"]


class Limits(NamedTuple):
    """Budgets of one step.

    Attributes:
        jobs: maximum number of running sequences.
        prefill_rows: prefill rows of a step without decode rows.
        prefill_rows_beside_decodes: prefill rows of a step with decode rows; limits the pauses in
            running answers.
        seconds_beside_decodes: with decode rows, fewer prefill rows run if a step would take longer
            than this, but not fewer than 16: a model computes 16 rows in little more than the time
            of one.
    """

    jobs: int = 256
    prefill_rows: int = 256
    prefill_rows_beside_decodes: int = 64
    seconds_beside_decodes: float = 0.1


@dataclass(eq=False, kw_only=True)
class Job:
    """A request as the scheduler sees it.

    Attributes:
        tokens: prompt and answer so far.
        blocks: cache blocks, in the order of the positions.
        computed: number of tokens whose keys and values are in the cache.
        cached: number of tokens that another job had computed.
        recomputed: number of tokens evicted from the cache for older jobs.
        namespace: part of the prefix cache that it uses.
    """

    tokens: list[int]
    blocks: list[int] = field(default_factory=list)
    computed: int = 0
    cached: int = 0
    recomputed: int = 0
    namespace: str = ""
    arrival: int = 0
    served: int = 0

    @property
    def pending(self) -> int:
        """Number of tokens that must run before the next one can be sampled."""
        return len(self.tokens) - self.computed


LEAST_ROWS = 16

J = TypeVar("J", bound=Job)


@dataclass(frozen=True, slots=True)
class Chunk(Generic[J]):
    """``count`` rows of a job, starting at position ``job.computed``, and rows of a draft.

    Attributes:
        draft: tokens that may follow those of the job. A row is computed for each of them; it is
            valid if the tokens that are sampled from the rows before it are those of the draft.
    """

    job: J
    count: int
    draft: tuple[int, ...] = ()

    @property
    def tokens(self) -> list[int]:
        """The token of each row."""
        start = self.job.computed
        return [*self.job.tokens[start : start + self.count], *self.draft]

    @property
    def is_decode(self) -> bool:
        """Whether it only computes the last token of a job."""
        return self.count == self.job.pending == 1

    @property
    def samples(self) -> bool:
        """Whether the next token is sampled, from the last row before the draft."""
        return self.count == self.job.pending


class Scheduler(Generic[J]):
    """Continuous batching over one pool of cache blocks.

    A step consists of ``plan``, the computation, ``complete``, and then, for each chunk that
    samples, one appended token or ``remove``. Drafts may be added to decode rows after ``plan``, as
    far as there is ``room``; each of their tokens that turns out to be right is appended before
    ``verified``. The pool must be able to hold any single job.
    """

    def __init__(
        self,
        pool: BlockPool,
        limits: Limits | None = None,
        restore: Callable[[BlockPool, J], bool] | None = None,
    ) -> None:
        """Start without jobs.

        Args:
            pool: the blocks.
            limits: budgets of a step.
            restore: publishes blocks of a waiting job that are kept elsewhere. It is called in each
                step until it returns True; the job is admitted after that.
        """
        self.pool = pool
        self._restore = restore
        self._limits = limits or Limits()
        self._waiting: deque[J] = deque()
        self._running: list[J] = []  # in the order of arrival
        self._arrivals = 0
        self._steps = 0
        self._row_seconds: float | None = None  # of a row, lately

    @property
    def running(self) -> int:
        """The number of jobs that hold blocks."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """The number of jobs that hold no blocks yet."""
        return len(self._waiting)

    def cached(self, tokens: list[int], namespace: str = "") -> int:
        """The number of these tokens that are in the cache; for any thread."""
        return self.pool.cached(tokens, namespace)

    def __iter__(self) -> Iterator[J]:
        """All jobs, running ones first."""
        yield from self._running
        yield from self._waiting

    def add(self, job: J) -> None:
        """Queue a job."""
        self._arrivals += 1
        job.arrival = self._arrivals
        self._waiting.append(job)

    def remove(self, job: J) -> None:
        """Remove a job, running or waiting, and free its blocks."""
        if job in self._running:
            self._running.remove(job)
            self.pool.release(job.blocks)
        else:
            self._waiting.remove(job)

    def plan(self) -> list[Chunk[J]]:
        """Choose the rows of the next step; empty if there is no job, or only one to restore."""
        self._steps += 1
        if not self._make_room():
            self._admit()
        decodes = [job for job in self._running if job.pending == 1]
        chunks = [Chunk(job, 1) for job in decodes]
        limits = self._limits
        rows = self._rows_beside(len(decodes)) if decodes else limits.prefill_rows
        prompts = [job for job in self._running if job.pending > 1]
        for job in sorted(prompts, key=lambda job: (job.served, job.arrival)):
            if rows == 0:
                break
            self._reuse(job)
            chunks.append(Chunk(job, min(rows, job.pending)))
            rows -= chunks[-1].count
        for chunk in chunks:
            chunk.job.served = self._steps
        return chunks

    def room(self, job: J, most: int) -> int:
        """Allocate blocks for draft rows of a job; the number of rows that fit, up to ``most``.

        No block is taken that another running job needs for its next row.
        """
        length = self.pool.needed(len(job.tokens) + most)
        if self.pool.available - (length - len(job.blocks)) >= len(self._running):
            self.pool.grow(job.blocks, length)
        return min(most, len(job.blocks) * self.pool.block_size - len(job.tokens))

    def took(self, rows: int, seconds: float) -> None:
        """Record the time of a step; the size of later ones depends on it, and no result does."""
        if rows < LEAST_ROWS:  # too few to tell what a row costs
            return
        measured = seconds / rows
        if self._row_seconds is not None:
            measured = self._row_seconds + (measured - self._row_seconds) / 4
        self._row_seconds = measured

    def complete(self, chunks: list[Chunk[J]]) -> None:
        """Record that the planned rows are in the cache; those of drafts are not valid yet."""
        for chunk in chunks:
            self._advance(chunk.job, chunk.count)

    def verified(self, job: J) -> None:
        """Record that one more row of a job is in the cache: that of its last token."""
        self._advance(job, 1)

    def _advance(self, job: J, rows: int) -> None:
        size = self.pool.block_size
        first = job.computed // size
        job.computed += rows
        last = job.computed // size
        self.pool.publish(job.blocks, job.tokens, first, last, job.namespace)

    def _rows_beside(self, decodes: int) -> int:
        """The prefill rows of a step with so many decode rows."""
        most = self._limits.prefill_rows_beside_decodes
        if not self._row_seconds:
            return most
        rows = min(self._limits.seconds_beside_decodes / self._row_seconds, float(most + decodes))
        return min(most, max(LEAST_ROWS, int(rows) - decodes))

    def _make_room(self) -> bool:
        """Give each running job a block for its next row, oldest first; True if a job was evicted.

        The youngest jobs are evicted. The oldest never is, because the pool can hold any single
        job, so there is always progress.
        """
        before = len(self._running)
        index = 0
        while index < len(self._running):
            job = self._running[index]
            if self.pool.grow(job.blocks, self.pool.needed(len(job.tokens))):
                index += 1
            else:
                self._preempt(self._running.pop())
        return len(self._running) < before

    def _preempt(self, job: J) -> None:
        job.recomputed += job.computed
        job.computed = 0
        self.pool.release(job.blocks)
        self._waiting.appendleft(job)

    def _admit(self) -> None:
        """Start waiting jobs in order, keeping a free block for each running job."""
        while self._waiting and len(self._running) < self._limits.jobs:
            job = self._waiting[0]
            if self._restore is not None and not self._restore(self.pool, job):
                break
            cached = job.cached
            self._reuse(job)
            length = self.pool.needed(len(job.tokens))
            left = self.pool.available - (length - len(job.blocks))
            if left < len(self._running):
                self.pool.release(job.blocks)
                job.computed, job.cached = 0, cached
                break
            self.pool.grow(job.blocks, length)
            self._running.append(self._waiting.popleft())

    def _reuse(self, job: J) -> None:
        """Let a job skip the tokens that other jobs have published."""
        before = job.computed
        job.computed = self.pool.reuse(job.blocks, job.tokens, before, job.namespace)
        if not job.recomputed:
            job.cached += job.computed - before
