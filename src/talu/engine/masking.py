"""Computes the masks of a step in a thread of its own, while the step runs."""

import threading
from collections.abc import Callable
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from talu.engine.scheduler import Chunk
from talu.engine.sequence import Sequence
from talu.exceptions import GenerationError

if TYPE_CHECKING:  # loaded when an answer is asked to have a form
    from talu.engine.constraints import Mask

__all__ = ["MaskMaker", "with_forced"]

LONGEST = 15  # forced tokens of a sequence in one step
ROWS = 64  # of the forced tokens of all sequences in one step

Room = Callable[[Sequence, int], int]


def with_forced(chunks: list[Chunk[Sequence]], room: Room) -> list[Chunk[Sequence]]:
    """The chunks of a step with the tokens that grammars force, as drafts.

    A forced token is verified like any other draft, so the tokens are those of plain decoding; a
    draft of the text's own n-grams is cut where the grammar forbids it.

    Args:
        chunks: one for each sequence.
        room: see ``Scheduler.room``.
    """
    left = ROWS
    result = []
    for chunk in chunks:
        constraint = chunk.job.constraint
        if constraint is None or not chunk.is_decode:
            result.append(chunk)
            continue
        most = min(chunk.job.longest_draft, LONGEST, left)
        draft = constraint.forced(most)
        if len(draft) > len(chunk.draft):
            draft = draft[: room(chunk.job, len(draft))]
        else:
            draft = constraint.allowed(chunk.draft)
        left -= len(draft)
        result.append(chunk if draft == chunk.draft else replace(chunk, draft=draft))
    return result


class Masks(NamedTuple):
    """The masks of a step.

    Attributes:
        allowed: of each constrained sequence, a mask for each of its rows; None allows all.
        failed: the sequences whose masks cannot be computed.
    """

    allowed: "dict[Sequence, list[Mask | None]]"
    failed: dict[Sequence, GenerationError]


class MaskMaker:
    """A thread that computes masks, started when the first is needed.

    Between ``start`` and ``wait``, the constraints belong to the thread.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[list[Chunk[Sequence]] | None] = SimpleQueue()
        self._done: SimpleQueue[Masks] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False

    def start(self, chunks: list[Chunk[Sequence]]) -> None:
        """Compute the masks of these chunks, which sample."""
        constrained = [
            chunk
            for chunk in chunks
            if chunk.job.constraint is not None and not chunk.job.constraint.is_free
        ]
        self._busy = bool(constrained)
        if not constrained:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="talu-masks", daemon=True)
            self._thread.start()
        self._work.put(constrained)

    def wait(self) -> Masks:
        """The masks that ``start`` asked for."""
        if not self._busy:
            return Masks({}, {})
        self._busy = False
        return self._done.get()

    def close(self) -> None:
        """End the thread."""
        self._work.put(None)

    def _run(self) -> None:
        while (chunks := self._work.get()) is not None:
            self._done.put(_masks(chunks))
            del chunks  # the thread must not keep what has ended


def _masks(chunks: list[Chunk[Sequence]]) -> Masks:
    masks = Masks({}, {})
    for chunk in chunks:
        sequence, constraint = chunk.job, chunk.job.constraint
        if constraint is None:
            continue
        try:
            masks.allowed[sequence] = constraint.masks(chunk.draft)
        except GenerationError as error:
            masks.failed[sequence] = error
        except BaseException as error:  # noqa: BLE001 - a panic of Rust; the step waits for this
            masks.failed[sequence] = GenerationError(
                f"a mask could not be computed: {type(error).__name__}: {error}"
            )
    return masks
