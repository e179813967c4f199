"""Adds drafts to the steps of a model, and measures what the steps cost."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from talu.engine.drafts import ROWS, StepPlan, StepTimes
from talu.engine.scheduler import Chunk
from talu.engine.sequence import Sequence

__all__ = ["Speculation"]

Room = Callable[[Sequence, int], int]


class Speculation:
    """The speculation of one engine."""

    def __init__(self) -> None:
        self._times = StepTimes()
        self._rows = 0  # of the current step; 0 if some are of prompts

    def with_drafts(self, chunks: list[Chunk[Sequence]], room: Room) -> list[Chunk[Sequence]]:
        """The chunks of a step with the drafts that pay.

        Args:
            chunks: one for each sequence.
            room: see ``Scheduler.room``.
        """
        decodes = sum(chunk.is_decode for chunk in chunks)
        if 0 < decodes < ROWS:
            plan = StepPlan(self._times, decodes)
            chunks = [self._with_draft(chunk, plan, room) for chunk in chunks]
        only_decodes = decodes == len(chunks)
        self._rows = sum(1 + len(chunk.draft) for chunk in chunks) if only_decodes else 0
        return chunks

    def measured(self, seconds: float) -> None:
        """Learn what the step cost; one with rows of prompts says nothing about decode rows."""
        if 0 < self._rows <= ROWS:
            self._times.measured(self._rows, seconds)

    def _with_draft(self, chunk: Chunk[Sequence], plan: StepPlan, room: Room) -> Chunk[Sequence]:
        drafts = chunk.job.drafts
        if drafts is None or not chunk.is_decode:
            return chunk
        draft = drafts.propose(plan, chunk.job.longest_draft, partial(room, chunk.job))
        return replace(chunk, draft=draft) if draft else chunk
