"""Puts the items of a turn into its history, each once, and stores them.

An interrupt may come between any two instructions. So what is done is noted after it is done, and
doing it again has the same result.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from talu.chat.builder import Builder
from talu.chat.history import History
from talu.chat.io import IO
from talu.chat.items import Item, ItemStatus, MessageItem
from talu.chat.open_calls import output_of
from talu.chat.outcome import Outcome
from talu.exceptions import StorageError
from talu.types import FinishReason

__all__ = ["Transaction"]


class Transaction:
    """What a turn changes in its history.

    Attributes:
        history: of the chat; of its own for a turn without a chat.
        keep: number of items of the history that stay before those of the round.
        committed: the last round whose items are in the history.
        question_is_saved: the store has the question, and the history does not.
    """

    def __init__(
        self,
        history: History | None = None,
        keep: int = 0,
        question: tuple[MessageItem, ...] = (),
        save: Callable[[Sequence[Item]], None] | None = None,
    ) -> None:
        """Begin; nothing is changed yet.

        Args:
            history: as above.
            keep: as above.
            question: the user's items, committed together with the answer's.
            save: replaces the stored history; None for a turn that is not stored.
        """
        self.history = history or History()
        self.keep = keep
        self.committed: Builder | None = None
        self.question_is_saved = False
        self._question = question
        self._save = save
        self._results_from = 0  # where the results of the committed round's calls are
        self._process = os.getpid()

    @property
    def items(self) -> list[Item]:
        """The items of the history."""
        return self.history.items

    def resume(self, builder: Builder) -> None:
        """Begin with calls at the end of the history, which have no results yet."""
        self.committed, self._results_from = builder, self.keep

    def go_on(self, outcome: Outcome[Any]) -> None:
        """Let another round follow the one that is in the history; one that is not is replaced."""
        if self.committed is outcome.builder:
            self.keep, self._question = len(self.items), ()
            outcome.earlier_runs = len(outcome.runs)

    def put_round(self, outcome: Outcome[Any], status: ItemStatus, config: dict[str, Any]) -> None:
        """Put the question and the answer of the round into the history, once.

        Args:
            outcome: of the turn.
            status: of the answer.
            config: the settings of the request.
        """
        builder = outcome.builder
        if self.committed is builder:
            return
        done = builder.done
        reason = done.finish_reason if done else FinishReason.CANCELLED
        generation: dict[str, object] = {
            "model": outcome.answered_by,
            "finish_reason": outcome.finish_reason or reason,
            "config": config,
        }
        if done is not None and done.seed is not None:
            generation["seed"] = done.seed
        self.items[self.keep :] = self._question + builder.items(status, generation)
        self._results_from = len(self.items)
        self.committed = builder  # after an interrupt before it, the same is done again

    def put_runs(self, outcome: Outcome[Any]) -> None:
        """Put the results of the calls of the round into the history, each once."""
        runs = outcome.runs[outcome.earlier_runs :]
        for run in runs[len(self.items) - self._results_from :]:
            self.items.append(output_of(run))

    async def store_question(self, io: IO) -> None:
        """Store the question after the current items; a replaced answer stays until the end.

        A regenerated question is not stored twice, but concurrent changes of the session are still
        detected. If the store cannot be written, the turn goes on: the write is repeated at its
        end, and an error raised then carries the answer.
        """
        replaced = self.items[self.keep : self.keep + 1]
        same = [item for item in replaced if isinstance(item, MessageItem)]
        repeated = [item.content for item in same] == [item.content for item in self._question]
        new = () if repeated else self._question
        self.question_is_saved = bool(new)
        self.question_is_saved = await self._stored(io, (*self.items, *new)) and bool(new)

    async def store_for_now(self, io: IO) -> None:
        """Store the history so far; what could not be written is written at the end."""
        await self._stored(io, self.items)

    async def _stored(self, io: IO, items: Sequence[Item]) -> bool:
        """Whether the items could be written now; other failures are raised."""
        try:
            await self.store(io, items)
        except StorageError as error:
            if error.code != StorageError.default_code:
                raise
            return False
        return True

    async def store(self, io: IO, items: Sequence[Item]) -> None:
        """Store the history, unless this is a forked child: the turn is its parent's."""
        if self._save is not None and self._process == os.getpid():
            await io.save(partial(self._save, tuple(items)))
