"""The connection of a chat to its session in a store, which saves only what has changed."""

import threading
from collections.abc import Sequence
from itertools import takewhile

from talu.chat.interrupts import Guard
from talu.chat.items import Item
from talu.chat.serialization import config_from_dict, item_from_dict, item_to_dict
from talu.exceptions import StateError, StorageError, ValidationError
from talu.first_use import loaded
from talu.forks import ForkSafeLock
from talu.json_values import json_copy
from talu.protocols import ChatRecord, Store, StoredRecord

__all__ = ["Persistence"]

THREAD = threading.local()  # ``guard``: of the current or last save of the thread


class Persistence:
    """The connection of a chat to its session in a store.

    Attributes:
        session_id: id of the session, which may not be stored yet.
    """

    def __init__(self, store: Store, session_id: str | None = None) -> None:
        self.session_id = session_id or str(loaded("uuid", "uuid4")())
        self._store = store
        self._gate = ForkSafeLock(reentrant=True)  # a signal handler may use the chat
        self._change: int | None = None  # number of the last stored change; None before the first
        self._record: ChatRecord | None = None
        self._items: list[Item] = []
        self._nodes: list[int] = []
        self._pending: tuple[ChatRecord, list[Item]] | None = None

    @property
    def stored(self) -> bool:
        """Whether the session is stored."""
        return self._change is not None

    def restore(self) -> tuple[StoredRecord, list[Item]] | None:
        """The stored record and items of the session; None when it is not stored."""
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
        self._record = _chat_fields(stored.record)
        return stored.record, list(self._items)

    def save(self, record: ChatRecord, items: Sequence[Item] | None = None) -> None:
        """Store the session with this history; None keeps the stored history.

        A chat is stored once it has an item, a title, a marker or metadata. An earlier change that
        could not be stored is stored now. Passing a history always counts as a change of the
        session, even if the history is the same, so that concurrent changes are detected on both
        sides.

        Raises:
            StateError: called from a signal handler while its thread is saving.
            StorageError: the store cannot be written, or the session was changed elsewhere.
        """
        under_way: Guard | None = getattr(THREAD, "guard", None)
        if under_way is not None and under_way.active:
            wrong = "a chat is being saved: a signal handler cannot save another one"
            raise StateError(wrong, "STATE_BUSY")
        guard = Guard()
        guard.run(self._saved(record, items, guard))

    async def _saved(self, record: ChatRecord, items: Sequence[Item] | None, guard: Guard) -> None:
        THREAD.guard = guard
        with self._gate.lock:
            self._check_interrupted_write()
            if items is None and record == self._record:
                return
            items = self._items if items is None else list(items)
            if self._change is None and not items and not _is_described(record):
                return
            keep = self._stored_of(items)
            try:
                self._write(record, items, keep)
            except LookupError:  # items shared with the parent session were deleted with it
                self._write(record, items, 0)

    def fork(self) -> "Persistence":
        """A connection to a new session that shares its stored items with this one."""
        fork = Persistence(self._store)
        with self._gate.lock:
            self._check_interrupted_write()
            fork._items, fork._nodes = list(self._items), list(self._nodes)
        return fork

    def _stored_of(self, items: Sequence[Item]) -> int:
        """How many items at the start are already stored."""
        pairs = zip(self._items, items, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], pairs))

    def _write(self, record: ChatRecord, items: list[Item], keep: int) -> None:
        after = self._nodes[keep - 1] if keep else None
        records = [item_to_dict(item) for item in items[keep:]]
        self._pending = record, items
        try:
            change, nodes = self._store.save(
                record, change=self._change, after=after, items=records
            )
        except (LookupError, StorageError) as error:
            if getattr(error, "code", None) != "STORAGE_UNCERTAIN":  # nothing was stored
                self._pending = None
            raise
        self._mark_saved(record, items, change, self._nodes[:keep] + nodes)

    def _mark_saved(
        self, record: ChatRecord, items: list[Item], change: int, nodes: list[int]
    ) -> None:
        self._change, self._record = change, record
        self._items, self._nodes = items, nodes
        self._pending = None

    def _check_interrupted_write(self) -> None:
        """After an interrupted write, look into the store to see whether it was committed."""
        if self._pending is None:
            return
        record, items = self._pending
        stored = self._store.load(self.session_id)
        if stored is not None and stored.change != self._change:
            found = _chat_fields(stored.record), stored.items
            written = json_copy("a session", (record, [item_to_dict(item) for item in items]))
            if found == tuple(written):
                self._mark_saved(record, items, stored.change, stored.nodes)
        self._pending = None


def _is_described(record: ChatRecord) -> bool:
    """Whether the caller gave the chat anything that a listing shows."""
    return record["title"] is not None or bool(record["marker"] or record["metadata"])


def _chat_fields(record: StoredRecord) -> ChatRecord:
    """The fields of a record that come from the chat, without those that the store adds."""
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
