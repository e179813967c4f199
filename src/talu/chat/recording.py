"""What a store has of a chat, and bringing it up to date with as little as has changed.

Knows no chat: items and attributes are handed in. Knows no store but the protocol.
"""

import threading
import uuid
from collections.abc import Sequence
from itertools import takewhile

from talu.chat.items import Item
from talu.chat.records import item_from_record, record_from_item
from talu.exceptions import StorageError, ValidationError
from talu.protocols import SessionRecord, Store

__all__ = ["Recording"]


class Recording:
    """The link between a chat and its session in a store.

    Attributes:
        session_id: of the session, which need not be stored yet.
    """

    def __init__(self, store: Store, session_id: str | None = None) -> None:
        self.session_id = session_id or str(uuid.uuid4())
        self._store = store
        self._lock = threading.Lock()
        self._change: int | None = None  # of the session as it is stored; None when it is not
        self._record: SessionRecord | None = None
        self._items: list[Item] = []
        self._nodes: list[int] = []

    @property
    def begun(self) -> bool:
        """Whether the session is stored."""
        return self._change is not None

    def restore(self) -> tuple[SessionRecord, list[Item]] | None:
        """What the store has of the session, None when it has nothing."""
        stored = self._store.load(self.session_id)
        if stored is None:
            return None
        try:
            where = f"session {self.session_id!r}, item"
            self._items = [
                item_from_record(f"{where} {i}", item) for i, item in enumerate(stored.items)
            ]
        except ValidationError as error:
            raise StorageError(str(error), "STORAGE_DAMAGED") from error
        self._change, self._nodes, self._record = stored.change, stored.nodes, stored.record.copy()
        del self._record["created_at_ms"], self._record["updated_at_ms"]
        return stored.record, list(self._items)

    def save(self, record: SessionRecord, items: Sequence[Item] | None = None) -> None:
        """Store the session with this history; None keeps the one that is stored.

        A chat without items is not stored yet. Whatever could not be stored before is now.
        """
        with self._lock:
            items = self._items if items is None else list(items)
            keep = self._stored_of(items)
            unchanged = keep == len(items) == len(self._items) and record == self._record
            if unchanged or (self._change is None and not items):
                return
            try:
                self._write(record, items, keep)
            except LookupError:  # what a fork shares with its parent is gone with the parent
                self._write(record, items, 0)

    def fork(self) -> "Recording":
        """A link to a new session that shares what is alike with this one."""
        fork = Recording(self._store)
        with self._lock:
            fork._items, fork._nodes = list(self._items), list(self._nodes)
        return fork

    def _stored_of(self, items: Sequence[Item]) -> int:
        """How many items at the start are stored as they are."""
        pairs = zip(self._items, items, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], pairs))

    def _write(self, record: SessionRecord, items: list[Item], keep: int) -> None:
        after = self._nodes[keep - 1] if keep else None
        records = [record_from_item(item) for item in items[keep:]]
        change, nodes = self._store.save(record, change=self._change, after=after, items=records)
        self._change, self._record = change, record
        self._items, self._nodes = list(items), self._nodes[:keep] + nodes
