"""Moves blocks between the KV cache and the files that keep them for later processes.

Blocks are read before a sequence is admitted, a few in each step, and copied after it has ended. A
thread writes the copies, so that no step waits for a disk.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from talu.engine.blocks import BlockPool
from talu.engine.prefix_files import Content, PrefixFiles, build, file_bytes, prefix_folder
from talu.engine.scheduler import Job
from talu.error_text import reason
from talu.exceptions import ValidationError

__all__ = ["BlockMemory", "KeptPrefixes", "open_kept"]

AT_ONCE = 16 << 20  # bytes that are read or copied between two steps
BACKLOG = 256 << 20  # bytes that wait for the disk
MOST_SEQUENCES = 64  # ended ones that are not copied yet
MOST_DOUBTFUL = 100_000  # files
CLOSING_S = 30.0  # for writing what is left when the engine closes

logger = logging.getLogger("talu.engine")


@runtime_checkable
class BlockMemory(Protocol):
    """An executor whose cache blocks can be read and replaced.

    Attributes:
        target: what its kernels are compiled for; others compute other bits.
        block_bytes: size of a block.
    """

    target: str

    @property
    def block_bytes(self) -> int:
        """Size of a block."""

    def read_blocks(self, blocks: NDArray[np.int32]) -> Content:
        """The bytes of blocks, a row for each."""

    def write_blocks(self, blocks: NDArray[np.int32], content: Content) -> None:
        """Replace the bytes of blocks."""


class KeptPrefixes:
    """Keeps the computed beginnings of sequences in files. For the engine's thread."""

    def __init__(self, files: PrefixFiles, memory: BlockMemory) -> None:
        self._files = files
        self._memory = memory
        self._ended: deque[tuple[list[int], str]] = deque(maxlen=MOST_SEQUENCES)
        self._job: Job | None = None  # the last one that was restored, at least in part
        self._parts = 0  # of it
        self._done = False
        self._doubtful: set[str] = set()  # files of a sequence of which another one was damaged
        self._writer = _Writer(files)

    @property
    def pause(self) -> float | None:
        """Seconds after which an idle engine should copy more; None if there is nothing."""
        return 0.02 if self._ended else None

    def restore(self, pool: BlockPool, job: Job) -> bool:
        """Read blocks of a waiting job into unused blocks of the pool; False if there are more."""
        if self._job is not job:
            self._job, self._parts, self._done = job, 0, False
        if not self._done:
            self._parts += 1
            self._done = self._restore_part(pool, job)
        return self._done

    def _restore_part(self, pool: BlockPool, job: Job) -> bool:
        size, tokens, room = pool.block_size, job.tokens, AT_ONCE
        names = self._files.names(tokens, size, job.namespace)
        with _held(pool, tokens, job.namespace) as blocks:
            while (len(blocks) + 1) * size < len(tokens):
                if room <= 0:
                    return self._parts > len(names)  # others take the blocks again and again
                index = len(blocks)
                name = names[index]
                known = name in self._files
                content = self._files.read(name)
                if content is None and known:
                    self._doubt(names[index:])
                if content is None or not pool.grow(blocks, index + 1):
                    break
                self._memory.write_blocks(np.array(blocks[-1:], np.int32), content[None])
                pool.publish(blocks, tokens, index, index + 1, job.namespace)
                room -= len(content)
            self._files.touch(names[: len(blocks)])
        return True

    def _doubt(self, names: list[str]) -> None:
        """Let these files be written again: what has damaged one may have damaged all."""
        if len(self._doubtful) + len(names) <= MOST_DOUBTFUL:
            self._doubtful.update(names)

    def keep(self, job: Job) -> None:
        """Remember an ended job, whose blocks are still in the pool."""
        if job.computed:
            self._ended.append((job.tokens[: job.computed], job.namespace))

    def copy(self, pool: BlockPool) -> None:
        """Copy blocks of ended jobs that are not in files yet, for the thread that writes them."""
        if not self._ended or self._writer.backlog >= BACKLOG:
            return
        try:
            self._copy(pool, *self._ended[0])
        except (MemoryError, RuntimeError) as error:  # no memory, or no thread
            self._ended.popleft()
            logger.warning("a computed prompt is not kept on disk: %s", error)

    def _copy(self, pool: BlockPool, tokens: list[int], namespace: str) -> None:
        names = self._files.names(tokens, pool.block_size, namespace)[: self._files.most_blocks]
        room = AT_ONCE
        with _held(pool, [*tokens, 0], namespace) as blocks:  # the last token has no full block
            for name, block in zip(names, blocks, strict=False):
                kept = name in self._files and name not in self._doubtful
                if kept or name in self._writer.writing:
                    continue
                if room <= 0:
                    return
                content = self._memory.read_blocks(np.array([block], np.int32))[0]
                self._writer.put(name, content)
                self._doubtful.discard(name)
                room -= len(content)
            self._writer.touch(names[: len(blocks)])
        self._ended.popleft()

    def close(self, pool: BlockPool) -> None:
        """Copy and write what is left, for at most half a minute."""
        end = time.monotonic() + CLOSING_S
        while self._ended and time.monotonic() < end:
            if self._writer.backlog >= BACKLOG:
                time.sleep(0.01)
            self.copy(pool)
        self._writer.close(max(0.0, end - time.monotonic()))


def open_kept(model: list[Any], memory: object, block_size: int, budget: int) -> KeptPrefixes | str:
    """What keeps the beginnings of prompts of a model; or a note that says why that cannot be done.

    Args:
        model: its files, network and formats, in JSON types.
        memory: its executor.
        block_size: tokens of a block.
        budget: maximum bytes of all files.

    Raises:
        ValidationError: the budget is smaller than one file.
    """
    note = "prefix_cache_bytes has no effect"
    if not isinstance(memory, BlockMemory):
        return f"{note}: this device does not give its cache away"
    needed = file_bytes(memory.block_bytes)
    if needed > budget:
        raise ValidationError(
            f"prefix_cache_bytes={budget:,} is too little: {block_size} tokens, the smallest part "
            f"of a prompt that is kept, take {needed:,} bytes with this model",
            details={"param": "prefix_cache_bytes", "value": budget, "needed": needed},
        )
    key = [model, build(), memory.target, block_size]
    try:
        files = PrefixFiles(prefix_folder(), key, block_bytes=memory.block_bytes, budget=budget)
    except OSError as error:
        return f"{note}: {reason(error)}"
    return KeptPrefixes(files, memory)


@contextmanager
def _held(pool: BlockPool, tokens: list[int], namespace: str) -> Iterator[list[int]]:
    """The published blocks of these tokens, which are not evicted in the meantime."""
    blocks: list[int] = []
    try:
        pool.reuse(blocks, tokens, 0, namespace)
        yield blocks
    finally:
        pool.release(blocks)


class _Writer:
    """A thread that writes blocks to files.

    Attributes:
        writing: names of the blocks that are not written yet.
    """

    def __init__(self, files: PrefixFiles) -> None:
        self.writing: dict[str, int] = {}
        self._files = files
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._failed = False
        self._thread: threading.Thread | None = None

    @property
    def backlog(self) -> int:
        """Bytes that are not written yet."""
        return sum(list(self.writing.values()))

    def put(self, name: str, content: Content) -> None:
        """Write a block soon."""
        self._start()
        self.writing[name] = len(content)
        self._queue.put(partial(self._write, name, content))

    def touch(self, names: list[str]) -> None:
        """Record that these blocks are used, once those before them are written."""
        self._start()
        self._queue.put(partial(self._files.touch, names))

    def close(self, seconds: float) -> None:
        """Write what is left, if that takes at most so long, and end."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(seconds)

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="talu-prefixes", daemon=True)
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while (action := self._queue.get()) is not None:
            action()

    def _write(self, name: str, content: Content) -> None:
        try:
            self._files.write(name, content)
        except OSError as error:
            level = logging.DEBUG if self._failed else logging.WARNING
            logger.log(level, "a computed prompt is not kept on disk: %s", reason(error))
            self._failed = True
        finally:
            self.writing.pop(name, None)
