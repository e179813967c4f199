"""The link between a chat and its session in a store; it saves only what has changed."""

import threading
import uuid
from collections.abc import Coroutine, Sequence
from itertools import takewhile
from typing import Any

from talu.chat.io import run, runs
from talu.chat.items import Item
from talu.chat.serialization import config_from_dict, item_from_dict, item_to_dict, json_copy
from talu.exceptions import StateError, StorageError, ValidationError
from talu.forks import ForkSafeLock
from talu.protocols import ChatRecord, Store, StoredRecord

__all__ = ["Persistence"]

THREAD = threading.local()  # its attribute ``work`` is what the thread saved last, or is saving


class Persistence:
    """The link between a chat and its session in a store.

    Attributes:
        session_id: of the session, which need not be stored yet.
    """

    def __init__(self, store: Store, session_id: str | None = None) -> None:
        self.session_id = session_id or str(uuid.uuid4())
        self._store = store
        self._gate = ForkSafeLock(reentrant=True)  # for a signal handler that asks
        self._change: int | None = None  # of the session as it is stored; None when it is not
        self._record: ChatRecord | None = None
        self._items: list[Item] = []
        self._nodes: list[int] = []
        self._tried: tuple[ChatRecord, list[Item]] | None = None

    @property
    def begun(self) -> bool:
        """Whether the session is stored."""
        return self._change is not None

    def restore(self) -> tuple[StoredRecord, list[Item]] | None:
        """What the store has of the session, None when it has nothing."""
        stored = self._store.load(self.session_id)
        if stored is None:
            return None
        try:
            self._items = [item_from_dict(f"item {i}", item) for i, item in enumerate(stored.items)]
            config_from_dict(stored.record["config"])
        except ValidationError as error:
            wrong = f"session {self.session_id!r} is damaged: {error}"
            details = {"session_id": self.session_id}
            raise StorageError(wrong, "STORAGE_DAMAGED", details) from error
        self._change, self._nodes = stored.change, stored.nodes
        self._record = _of_chat(stored.record)
        return stored.record, list(self._items)

    def save(self, record: ChatRecord, items: Sequence[Item] | None = None) -> None:
        """Store the session with this history; None keeps the one that is stored.

        A chat without items is not stored yet. Whatever could not be stored before is now. A
        history is a change of the session even when it is the one that is stored: whoever else
        changed the session is noticed, and notices this.

        Raises:
            StateError: a signal handler saves while its thread is saving.
            StorageError: the store cannot be written, or the session was changed elsewhere.
        """
        holder: list[Coroutine[Any, Any, None]] = []
        work = self._saved(record, items, holder)
        holder.append(work)
        under_way = getattr(THREAD, "work", None)
        if under_way is not None and runs(under_way):
            work.close()
            wrong = "a chat is being saved: a signal handler cannot save another one"
            raise StateError(wrong, "STATE_BUSY")
        run(work)

    async def _saved(
        self,
        record: ChatRecord,
        items: Sequence[Item] | None,
        holder: list[Coroutine[Any, Any, None]],
    ) -> None:
        THREAD.work = holder[0]
        with self._gate.lock:
            self._find_out()
            if items is None and record == self._record:
                return
            items = self._items if items is None else list(items)
            if self._change is None and not items:
                return
            keep = self._stored_of(items)
            try:
                self._write(record, items, keep)
            except LookupError:  # what a fork shares with its parent is gone with the parent
                self._write(record, items, 0)

    def fork(self) -> "Persistence":
        """A link to a new session that shares what is alike with this one."""
        fork = Persistence(self._store)
        with self._gate.lock:
            self._find_out()
            fork._items, fork._nodes = list(self._items), list(self._nodes)
        return fork

    def _stored_of(self, items: Sequence[Item]) -> int:
        """How many items at the start are stored as they are."""
        pairs = zip(self._items, items, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], pairs))

    def _write(self, record: ChatRecord, items: list[Item], keep: int) -> None:
        after = self._nodes[keep - 1] if keep else None
        records = [item_to_dict(item) for item in items[keep:]]
        self._tried = record, items
        try:
            change, nodes = self._store.save(
                record, change=self._change, after=after, items=records
            )
        except (LookupError, StorageError):  # nothing was stored
            self._tried = None
            raise
        self._note(record, items, change, self._nodes[:keep] + nodes)

    def _note(self, record: ChatRecord, items: list[Item], change: int, nodes: list[int]) -> None:
        self._change, self._record = change, record
        self._items, self._nodes = items, nodes
        self._tried = None

    def _find_out(self) -> None:
        """Whether a write that was interrupted took place: the store then has what it wrote."""
        if self._tried is None:
            return
        record, items = self._tried
        stored = self._store.load(self.session_id)
        if stored is not None and stored.change != self._change:
            there = _of_chat(stored.record), stored.items
            written = json_copy("a session", (record, [item_to_dict(item) for item in items]))
            if there == tuple(written):
                self._note(record, items, stored.change, stored.nodes)
        self._tried = None


def _of_chat(record: StoredRecord) -> ChatRecord:
    """What the chat gave of a record, without what the store added."""
    return ChatRecord(
        session_id=record["session_id"],
        parent_session_id=record["parent_session_id"],
        title=record["title"],
        model=record["model"],
        system_prompt=record["system_prompt"],
        config=record["config"],
        chat_template=record["chat_template"],
        marker=record["marker"],
        metadata=record["metadata"],
    )
