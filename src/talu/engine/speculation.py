"""Adds drafts to the steps of a model, and measures what the steps cost."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import perf_counter

from talu.engine.drafts import ROWS, StepPlan, StepTimes
from talu.engine.scheduler import Chunk
from talu.engine.sequence import Sequence

__all__ = ["Speculation"]

SEARCH = 0.02  # of the time of steps that looking for drafts may take where there are none
LONGEST_PAUSE = 16  # steps

Room = Callable[[Sequence, int], int]


class Speculation:
    """The speculation of one engine.

    The steps of a very small model are so short that looking for a draft takes a noticeable part of
    them. After a step without drafts, no draft is looked for until the time for it has been earned.
    """

    def __init__(self) -> None:
        self._times = StepTimes()
        self._rows = 0  # of the current step; 0 if its time tells nothing
        self._pause = 0  # steps
        self._search_seconds = 0.0
        self._has_drafts = False

    def with_drafts(self, chunks: list[Chunk[Sequence]], room: Room) -> list[Chunk[Sequence]]:
        """The chunks of a step with the drafts that pay.

        Args:
            chunks: one for each sequence.
            room: see ``Scheduler.room``.
        """
        self._rows = 0
        if self._pause:
            self._pause -= 1
            return chunks
        before = perf_counter()
        decodes = sum([chunk.is_decode for chunk in chunks])
        if 0 < decodes < ROWS:
            plan = StepPlan(self._times, decodes)
            chunks = [self._with_draft(chunk, plan, room) for chunk in chunks]
        drafted = sum([len(chunk.draft) for chunk in chunks])
        self._has_drafts = drafted > 0
        if decodes == len(chunks):  # a step with rows of prompts says nothing about decode rows
            self._rows = decodes + drafted
        self._search_seconds = perf_counter() - before
        return chunks

    def measured(self, seconds: float) -> None:
        """Learn what the step cost."""
        if 0 < self._rows <= ROWS:
            self._times.measured(self._rows, seconds)
            if not self._has_drafts:
                pause = int(self._search_seconds / (SEARCH * seconds))
                self._pause = min(pause, LONGEST_PAUSE)

    def forget(self) -> None:
        """Learn nothing from the current step, whose rows are others."""
        self._rows = 0

    def _with_draft(self, chunk: Chunk[Sequence], plan: StepPlan, room: Room) -> Chunk[Sequence]:
        drafts = chunk.job.drafts
        if drafts is None or not chunk.is_decode:
            return chunk
        draft = drafts.propose(plan, chunk.job.longest_draft, partial(room, chunk.job))
        return replace(chunk, draft=draft) if draft else chunk
