"""The store of chats, in which sessions are heads in a tree of items.

Items shared by several sessions are stored once, and deleted with the last session that refers to
them. What is done is written here once for all databases; their statements are in ``Tables``.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn

from talu.error_text import shown
from talu.exceptions import StorageError, ValidationError
from talu.protocols import ChatRecord, SessionRecord, StoredRecord, StoredSession
from talu.storage.histories import first_question, read_history
from talu.storage.rows import (
    Damage,
    SessionRow,
    damage_error,
    decode,
    encode,
    record_of,
    words_of,
)
from talu.storage.tables import Selection, Tables
from talu.storage.words import Query, snippet

__all__ = ["Database"]

MAX_NAMED = 10  # damaged sessions in a warning
OPEN_SECONDS = 0.2  # maximum time for pending removals when a database is opened


class Database(ABC):
    """The sessions of one database, for use by any number of threads and processes.

    Args:
        name: how messages name the database.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._resumed = False

    @property
    @abstractmethod
    def exists(self) -> bool:
        """Whether something has been stored; until then, nothing reads the tables."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Tables]:
        """A read transaction, which sees a single snapshot of the database."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[Tables]:
        """A write transaction, committed when the block ends and rolled back if it raises."""

    @abstractmethod
    def finish_removals(self) -> bool:
        """Finish all pending removals.

        Returns:
            Whether the text is erased from the disk. If a removal fails, the reason is logged, and
            later writes continue it.
        """

    @abstractmethod
    def advance_removals(self, seconds: float = 0.0) -> None:
        """Continue pending removals, by one step or for the given time; errors are only logged."""

    def load(self, session_id: str) -> StoredSession | None:
        """See ``Store.load``."""
        if not self.exists:
            return None
        self._resume()
        with self.reading() as tables:
            row = tables.session(session_id)
            if row is None:
                return None
            try:
                nodes, items = read_history(row.head, tables.history(row.head))
            except Damage as error:
                raise self.damaged(error, session_id) from error
        return StoredSession(self.record_of(row), row.change, nodes, items)

    def save(
        self,
        record: ChatRecord,
        *,
        change: int | None,
        after: int | None,
        items: Sequence[Mapping[str, Any]],
    ) -> tuple[int, list[int]]:
        """See ``Store.save``."""
        texts = [(encode("an item", item), words_of(item)) for item in items]
        session_id = record["session_id"]
        with self.writing() as tables:
            row = tables.session(session_id)
            if (None if row is None else row.change) != change:
                self._refuse_conflict(session_id, "changed" if row else "deleted")
            if after is not None and not tables.has_node(after):
                raise LookupError(after)
            nodes = tables.add_items(after, texts)
            head = nodes[-1] if nodes else after
            if row is None:
                made = tables.add_session(record, head)
            else:
                made = tables.change_session(record, head)
            if made is None:
                self._refuse_conflict(session_id, "changed")
            if row is not None and row.head not in (None, after):
                tables.drop_history(row.head)
            unfinished = tables.has_removals()
        if unfinished:
            self.advance_removals()
        return made, nodes

    def sessions(
        self, *, search: Query | None, marker: str | None, limit: int, before: int | None
    ) -> list[SessionRecord]:
        """Sessions, most recently changed first; see ``Profile.sessions``."""
        if not self.exists:
            return []
        self._resume()
        with self.reading() as tables:
            unlisted = tables.unlisted(MAX_NAMED + 1) if before is None else []
            sessions = []
            for row, found in tables.page(Selection(search, marker, limit, before)):
                record = self.record_of(row)
                excerpt = None
                if search is not None:
                    text = record["title"] if found is None else self._text(tables, found, record)
                    excerpt = snippet(text or "", search)
                sessions.append(
                    SessionRecord(**record, search_snippet=excerpt, cursor=str(row.change))
                )
        if unlisted:
            names = [shown(str(session_id, errors="replace")) for session_id in unlisted]
            more = " and others" if len(names) > MAX_NAMED else ""
            warnings.warn(
                f"{self.name} has damaged sessions that listings and searches may leave out: "
                f"{', '.join(names[:MAX_NAMED])}{more}; restore the file from a copy, or delete "
                "these sessions",
                stacklevel=3,
            )
        return sessions

    def first_question(self, session_id: str) -> str | None:
        """The text of the first user message of a session; None if it has none."""
        if not self.exists:
            return None
        with self.reading() as tables:
            row = tables.session(session_id)
            try:
                return None if row is None else first_question(tables.history(row.head))
            except Damage as error:
                raise self.damaged(error, session_id) from error

    def delete(self, session_id: str) -> bool:
        """Delete a session and all items that no other one shares.

        Returns:
            Whether the text is erased from the disk.
        """
        if not self.exists:
            self._refuse_unknown(session_id)
        with self.writing() as tables:
            row = tables.session(session_id)
            if row is None:
                self._refuse_unknown(session_id)
            tables.delete_session(session_id)
            tables.add_removal(row.head)
        return self.finish_removals()

    def damaged(self, wrong: object, session_id: str | None = None) -> StorageError:
        """The error for a damaged database, or for a damaged session in it."""
        return damage_error(self.name, wrong, session_id)

    def record_of(self, row: SessionRow) -> StoredRecord:
        """The session of a row; ``StorageError`` if it is damaged."""
        try:
            return record_of(row)
        except Damage as error:
            raise self.damaged(error, str(row.session_id, errors="replace")) from error

    def _text(self, tables: Tables, node: int, record: StoredRecord) -> str:
        """The text of an item found by a search."""
        try:
            return words_of(decode(tables.item(node)))
        except Damage as error:
            raise self.damaged(f"an item: {error}", record["session_id"]) from error

    def _resume(self) -> None:
        """Continue interrupted removals on the first use of the database."""
        if self._resumed:
            return
        self._resumed = True
        with self.reading() as tables:
            unfinished = tables.has_removals()
        if unfinished:
            self.advance_removals(OPEN_SECONDS)

    def _refuse_unknown(self, session_id: str) -> NoReturn:
        wrong = f"{self.name} has no session {shown(session_id)}"
        raise ValidationError(wrong, details={"param": "session_id", "value": session_id})

    def _refuse_conflict(self, session_id: str, done: str) -> NoReturn:
        by = " by another chat or process" if done == "changed" else ""
        raise StorageError(
            f"session {shown(session_id)} in {self.name} was {done}{by} since this chat read it: "
            "client.chat(session_id=…) reads it again, chat.fork() continues under a new id",
            "STORAGE_CONFLICT",
            {"session_id": session_id},
        )
