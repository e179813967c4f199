"""The store of chats: sessions as heads in a tree of items, found, changed and deleted.

Items of a history that several sessions share are stored once; an item goes when the last session
that leads to it goes.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from talu.exceptions import StorageError, ValidationError
from talu.protocols import ChatRecord, SessionRecord, StoredRecord, StoredSession
from talu.storage.rows import encode, session_of_row, session_text, words_of
from talu.storage.sqlite import File

__all__ = ["Database", "add_items", "add_session"]

PATH = """
    WITH RECURSIVE path (node) AS (
        SELECT head FROM sessions WHERE session_id = ? AND head IS NOT NULL
        UNION ALL
        SELECT parent FROM nodes JOIN path USING (node) WHERE parent IS NOT NULL
    )
    SELECT node, item FROM path JOIN nodes USING (node) ORDER BY node
"""
LISTED = "change, session_id, marker, created_at_ms, updated_at_ms, record"
LIST = f"""
    SELECT {LISTED}, NULL FROM sessions
    WHERE change < :before AND (:marker IS NULL OR marker = :marker)
    ORDER BY change DESC LIMIT :limit
"""
# From each item that has the words down the tree to the next one that has them, so that each node
# is looked at once: a session's head then knows the last item before it.
SEARCH = f"""
    WITH RECURSIVE hits AS MATERIALIZED (SELECT rowid AS node FROM words WHERE words MATCH :words),
    below (node, hit) AS (
        SELECT node, node FROM hits
        UNION ALL
        SELECT nodes.node, hit FROM below JOIN nodes ON nodes.parent = below.node
        WHERE nodes.node NOT IN (SELECT node FROM hits)
    )
    SELECT {LISTED}, hit FROM sessions JOIN below ON node = head
    WHERE change < :before AND (:marker IS NULL OR marker = :marker)
    ORDER BY change DESC LIMIT :limit
"""
SNIPPET = """
    SELECT snippet(words, 0, '[', ']', '…', 12) FROM words WHERE words MATCH ? AND rowid = ?
"""


class Database:
    """The sessions of one file. Safe to use from any threads, and from several processes."""

    def __init__(self, path: Path) -> None:
        self._file = File(path)

    @property
    def path(self) -> Path:
        """The database file; it need not be there yet."""
        return self._file.path

    @property
    def file(self) -> File:
        """The opened file, for what does more than one thing at once."""
        return self._file

    def load(self, session_id: str) -> StoredSession | None:
        """See ``Store.load``."""
        if not self._file.exists:
            return None
        with self._file.reading() as db:
            found = db.execute(
                f"SELECT {LISTED} FROM sessions WHERE session_id = ?", (session_id,)
            ).fetchone()
            rows = db.execute(PATH, (session_id,)).fetchall()
        if found is None:
            return None
        change, *columns = found
        record = self.session_of(*columns)
        try:
            items = [json.loads(item) for _, item in rows]
        except ValueError as error:
            raise self._damaged(session_id, error) from error
        return StoredSession(record, change, [node for node, _ in rows], items)

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
        session_id, text = record["session_id"], session_text(record)
        with self._file.writing() as db:
            old_head = self._check_change(db, session_id, change)
            if after is not None and not _has(db, after):
                raise LookupError(after)
            nodes = add_items(db, after, texts)
            head = nodes[-1] if nodes else after
            if change is None:
                made = add_session(db, session_id, head, record["marker"], text)
            else:
                made = _next_change(db)
                db.execute(
                    "UPDATE sessions SET change = ?, head = ?, marker = ?, updated_at_ms = ?,"
                    " record = ? WHERE session_id = ?",
                    (made, head, record["marker"], _now_ms(), text, session_id),
                )
            _drop_unused(db, old_head)
        return made, nodes

    def sessions(
        self, *, search: str | None, marker: str | None, limit: int, before: int | None
    ) -> list[SessionRecord]:
        """Sessions, the one that was changed last first; see ``Profile.sessions``."""
        if not self._file.exists:
            return []
        words = _query(search or "")
        values = {
            "words": words,
            "marker": marker,
            "limit": limit,
            "before": 2**63 - 1 if before is None else before,
        }
        with self._file.reading() as db:
            rows = db.execute(SEARCH if words else LIST, values).fetchall()
            sessions = []
            for change, *columns, hit in rows:
                snippet = None
                if hit is not None:
                    (snippet,) = db.execute(SNIPPET, (words, hit)).fetchone()
                stored = self.session_of(*columns)
                sessions.append(SessionRecord(**stored, search_snippet=snippet, cursor=str(change)))
        return sessions

    def delete(self, session_id: str) -> None:
        """Remove a session and every item that no other session has, from the disk as well."""
        if not self._file.exists:
            self._refuse_unknown(session_id)
        with self._file.writing() as db:
            found = db.execute(
                "SELECT head FROM sessions WHERE session_id = ?", (session_id,)
            ).fetchone()
            if found is None:
                self._refuse_unknown(session_id)
            db.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))
            _drop_unused(db, found[0])
        self._file.erase_traces()

    def session_of(
        self, session_id: str, marker: str, created_at_ms: int, updated_at_ms: int, text: str
    ) -> StoredRecord:
        """The session of a row of this file; ``StorageError`` when it is damaged."""
        try:
            return session_of_row(session_id, marker, created_at_ms, updated_at_ms, text)
        except ValueError as error:
            raise self._damaged(session_id, error) from error

    def _damaged(self, session_id: str, error: ValueError) -> StorageError:
        wrong = f"{self.path} is damaged: session {session_id!r} cannot be read: {error}"
        return StorageError(wrong, "STORAGE_DAMAGED", {"session_id": session_id})

    def _refuse_unknown(self, session_id: str) -> NoReturn:
        wrong = f"{self.path} has no session {session_id!r}"
        raise ValidationError(wrong, details={"param": "session_id", "value": session_id})

    def _check_change(
        self, db: sqlite3.Connection, session_id: str, change: int | None
    ) -> int | None:
        """The session's head, if nobody else changed it."""
        found = db.execute(
            "SELECT change, head FROM sessions WHERE session_id = ?", (session_id,)
        ).fetchone()
        if found is None and change is None:
            return None
        if found is not None and found[0] == change:
            head: int | None = found[1]
            return head
        done = "deleted" if found is None else "changed by another chat or process"
        raise StorageError(
            f"session {session_id!r} in {self.path} was {done} since this chat read it: "
            "client.chat(session_id=…) reads it again, chat.fork() goes on under a new id",
            "STORAGE_CONFLICT",
            {"session_id": session_id},
        )


def add_items(
    db: sqlite3.Connection, parent: int | None, texts: Iterable[tuple[str, str]]
) -> list[int]:
    """Hang items, each as JSON and words, one below the other; gives their nodes."""
    nodes: list[int] = []
    for item, words in texts:
        made = db.execute("INSERT INTO nodes (parent, item) VALUES (?, ?)", (parent, item))
        parent = int(made.lastrowid or 0)
        nodes.append(parent)
        if words:
            db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (parent, words))
    return nodes


def add_session(
    db: sqlite3.Connection,
    session_id: str,
    head: int | None,
    marker: str,
    text: str,
    times: tuple[int, int] | None = None,
) -> int:
    """Make a session now, or at the given times; gives the number of the change."""
    change, (created, updated) = _next_change(db), times or (_now_ms(), _now_ms())
    db.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)",
        (session_id, change, head, marker, created, updated, text),
    )
    return change


def _query(search: str) -> str:
    """All of these words, each as a beginning, in FTS5's syntax; nothing in them is syntax."""
    plain = search.replace('"', " ").replace("\0", " ").encode(errors="replace").decode()
    return " ".join(f'"{word}"*' for word in plain.split())


def _next_change(db: sqlite3.Connection) -> int:
    db.execute("UPDATE changes SET last = last + 1")
    (change,) = db.execute("SELECT last FROM changes").fetchone()
    return int(change)


def _has(db: sqlite3.Connection, node: int) -> bool:
    return db.execute("SELECT 1 FROM nodes WHERE node = ?", (node,)).fetchone() is not None


def _drop_unused(db: sqlite3.Connection, node: int | None) -> None:
    """Delete a node and those above it, up to one that something still leads to."""
    while node is not None:
        used = db.execute(
            "SELECT EXISTS (SELECT 1 FROM nodes WHERE parent = :node)"
            " OR EXISTS (SELECT 1 FROM sessions WHERE head = :node)",
            {"node": node},
        ).fetchone()
        if used[0]:
            return
        (parent,) = db.execute("SELECT parent FROM nodes WHERE node = ?", (node,)).fetchone()
        db.execute("DELETE FROM words WHERE rowid = ?", (node,))
        db.execute("DELETE FROM nodes WHERE node = ?", (node,))
        node = parent


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
