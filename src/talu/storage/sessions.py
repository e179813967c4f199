"""The store of chats, in which sessions are heads in a tree of items.

Items shared by several sessions are stored once, and deleted with the last session that refers to
them.
"""

import sqlite3
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from talu.error_text import shown
from talu.exceptions import StorageError, ValidationError
from talu.protocols import ChatRecord, SessionRecord, StoredRecord, StoredSession
from talu.storage.index import search_condition, set_title
from talu.storage.removal import (
    OPEN_SECONDS,
    add_removal,
    advance_removals,
    finish_removals,
    has_removals,
    remove_items,
)
from talu.storage.rows import Damage, decode, encode, record_of_row, record_text, words_of
from talu.storage.sqlite import File
from talu.storage.tree import add_items, first_question, has_node, read_path
from talu.storage.words import Query, snippet

__all__ = ["COLUMNS", "Database", "add_session"]

# Texts are read as bytes, so that invalid UTF-8 is an error of its session, not of the statement.
COLUMNS = (
    "change, CAST(coalesce(session_id, '') AS BLOB), CAST(coalesce(marker, '') AS BLOB),"
    " created_at_ms, updated_at_ms, CAST(record AS BLOB)"
)
PAGE = """
    change < :before AND (:marker IS NULL OR marker = :marker) ORDER BY change DESC LIMIT :limit
"""
LIST = f"SELECT {COLUMNS}, NULL FROM sessions WHERE {PAGE}"
MAX_CHANGE = 2**63 - 1
MAX_NAMED = 10
# Values that the listing or the search does not reach: text and blobs sort after all numbers.
UNLISTED = f"""
    SELECT CAST(coalesce(session_id, '') AS BLOB) FROM sessions
    WHERE change >= {MAX_CHANGE} OR change IS NULL OR head >= '' LIMIT {MAX_NAMED + 1}
"""
# Walks from each matching item down the tree to the next matching one, so each node is visited
# once. The result maps the head of a session to the last matching item of its history.
SEARCH = f"""
    WITH RECURSIVE hits AS MATERIALIZED (SELECT rowid AS node FROM words WHERE {{words}}),
    below (node, hit) AS (
        SELECT node, node FROM hits
        UNION ALL
        SELECT nodes.node, hit FROM below JOIN nodes ON nodes.parent = below.node
        WHERE nodes.node > below.node AND nodes.node NOT IN (SELECT node FROM hits)
    ),
    titled AS MATERIALIZED (SELECT rowid FROM titles WHERE {{titles}})
    SELECT {COLUMNS}, hit FROM sessions LEFT JOIN below ON below.node = head
    WHERE (hit IS NOT NULL OR title_row IN (SELECT rowid FROM titled)) AND {PAGE}
"""


class Database:
    """The sessions of one file, for use by any number of threads and processes.

    Args:
        path: the file.
        root: the topmost folder of the path that belongs to talu; the file's folder if None.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        self._file = File(path, root)
        self._resumed = False

    @property
    def path(self) -> Path:
        """The database file, which may not exist yet."""
        return self._file.path

    @property
    def file(self) -> File:
        """The open file, for operations that span several calls."""
        return self._file

    def load(self, session_id: str) -> StoredSession | None:
        """See ``Store.load``."""
        if not self._file.exists:
            return None
        self._resume()
        with self._file.reading() as db:
            found = db.execute(
                f"SELECT head, {COLUMNS} FROM sessions WHERE session_id = ?", (session_id,)
            ).fetchone()
            if found is None:
                return None
            head, *columns = found
            try:
                nodes, items = read_path(db, head)
            except Damage as error:
                raise self._file.damaged(error, session_id) from error
        return StoredSession(self.record_of(*columns), columns[0], nodes, items)

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
        session_id, text = record["session_id"], record_text(record)
        with self._file.writing() as db:
            old_head, title_row = self._check_change(db, session_id, change)
            if after is not None and not has_node(db, after):
                raise LookupError(after)
            nodes = add_items(db, after, texts)
            head = nodes[-1] if nodes else after
            if change is None:
                made = add_session(db, record, head)
            else:
                made = _next_change(db)
                db.execute(
                    "UPDATE sessions SET change = ?, head = ?, marker = ?, updated_at_ms = ?,"
                    " record = ?, title_row = ? WHERE session_id = ?",
                    (
                        *(made, head, record["marker"], _now_ms(), text),
                        *(set_title(db, title_row, record["title"]), session_id),
                    ),
                )
            rest = remove_items(db, old_head)
            if rest is not None:
                add_removal(db, rest)
            unfinished = has_removals(db)
        if unfinished:
            advance_removals(self._file)
        return made, nodes

    def sessions(
        self, *, search: Query | None, marker: str | None, limit: int, before: int | None
    ) -> list[SessionRecord]:
        """Sessions, most recently changed first; see ``Profile.sessions``."""
        if not self._file.exists:
            return []
        self._resume()
        values: dict[str, object] = {
            "marker": marker,
            "limit": limit,
            "before": MAX_CHANGE if before is None else before,
        }
        statement = LIST
        if search is not None:
            words, parameters = search_condition("words", search)
            titles, _ = search_condition("titles", search)
            statement = SEARCH.format(words=words, titles=titles)
            values |= parameters
        with self._file.reading() as db:
            unlisted = db.execute(UNLISTED).fetchall() if before is None else []
            sessions = []
            for *columns, hit in db.execute(statement, values).fetchall():
                record = self.record_of(*columns)
                shown_text = None
                if search is not None:
                    found = record["title"] if hit is None else self._text_of(db, hit, record)
                    shown_text = snippet(found or "", search)
                sessions.append(
                    SessionRecord(**record, search_snippet=shown_text, cursor=str(columns[0]))
                )
        if unlisted:
            names = [shown(str(session_id, errors="replace")) for (session_id,) in unlisted]
            more = " and others" if len(names) > MAX_NAMED else ""
            warnings.warn(
                f"{self.path} has damaged sessions that listings and searches may leave out: "
                f"{', '.join(names[:MAX_NAMED])}{more}; restore the file from a copy, or delete "
                "these sessions",
                stacklevel=3,
            )
        return sessions

    def first_question(self, session_id: str) -> str | None:
        """The text of the first user message of a session; None if it has none."""
        if not self._file.exists:
            return None
        with self._file.reading() as db:
            found = db.execute(
                "SELECT head FROM sessions WHERE session_id = ?", (session_id,)
            ).fetchone()
            try:
                return None if found is None else first_question(db, found[0])
            except Damage as error:
                raise self._file.damaged(error, session_id) from error

    def delete(self, session_id: str) -> bool:
        """Delete a session and all items that no other one shares, and erase them from the disk.

        Returns:
            False if the text is still on the disk; a later write will erase it.
        """
        if not self._file.exists:
            self._refuse_unknown(session_id)
        with self._file.writing() as db:
            found = db.execute(
                "SELECT head, title_row FROM sessions WHERE session_id = ?", (session_id,)
            ).fetchone()
            if found is None:
                self._refuse_unknown(session_id)
            head, title_row = found
            set_title(db, title_row, None)
            db.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))
            add_removal(db, head)
        return finish_removals(self._file)

    def record_of(self, change: int, session_id: bytes, *columns: Any) -> StoredRecord:
        """The session of a row of ``COLUMNS``; ``StorageError`` if it is damaged."""
        try:
            if not isinstance(change, int):
                raise Damage(f"its change is {shown(change)}")
            return record_of_row(session_id, *columns)
        except Damage as error:
            raise self._file.damaged(error, str(session_id, errors="replace")) from error

    def _text_of(self, db: sqlite3.Connection, node: int, record: StoredRecord) -> str:
        """The text of an item found by a search."""
        row = db.execute("SELECT CAST(item AS BLOB) FROM nodes WHERE node = ?", (node,)).fetchone()
        try:
            return words_of(decode(row and row[0]))
        except Damage as error:
            raise self._file.damaged(f"an item: {error}", record["session_id"]) from error

    def _resume(self) -> None:
        """Continue interrupted removals on the first use of the database."""
        if self._resumed:
            return
        self._resumed = True
        with self._file.reading() as db:
            unfinished = has_removals(db)
        if unfinished:
            advance_removals(self._file, OPEN_SECONDS)

    def _refuse_unknown(self, session_id: str) -> NoReturn:
        wrong = f"{self.path} has no session {shown(session_id)}"
        raise ValidationError(wrong, details={"param": "session_id", "value": session_id})

    def _check_change(
        self, db: sqlite3.Connection, session_id: str, change: int | None
    ) -> tuple[int | None, int | None]:
        """The session's head and row of titles; an error if it was changed elsewhere."""
        found = db.execute(
            "SELECT change, head, title_row FROM sessions WHERE session_id = ?", (session_id,)
        ).fetchone()
        if found is None and change is None:
            return None, None
        if found is not None and found[0] == change:
            head, title_row = found[1:]
            return head, title_row
        done = "deleted" if found is None else "changed by another chat or process"
        raise StorageError(
            f"session {shown(session_id)} in {self.path} was {done} since this chat read it: "
            "client.chat(session_id=…) reads it again, chat.fork() continues under a new id",
            "STORAGE_CONFLICT",
            {"session_id": session_id},
        )


def add_session(
    db: sqlite3.Connection,
    record: ChatRecord,
    head: int | None,
    times: tuple[int, int] | None = None,
) -> int:
    """Create a session, with the current or the given times; return the number of the change."""
    change, (created, updated) = _next_change(db), times or (_now_ms(), _now_ms())
    title_row = set_title(db, None, record["title"])
    session_id, marker, text = record["session_id"], record["marker"], record_text(record)
    db.execute(
        "INSERT INTO sessions (session_id, change, head, marker, created_at_ms, updated_at_ms,"
        " record, title_row) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (session_id, change, head, marker, created, updated, text, title_row),
    )
    return change


def _next_change(db: sqlite3.Connection) -> int:
    """A number greater than that of all changes so far."""
    db.execute("UPDATE changes SET last = last + 1")
    change, last = db.execute(
        "SELECT (SELECT max(last) FROM changes), (SELECT max(change) FROM sessions)"
    ).fetchone()
    if not isinstance(change, int) or not (last is None or isinstance(last, int)):
        raise Damage(f"the number of the last change is {shown(change)} or {shown(last)}")
    if last is not None and change <= last:
        raise Damage(f"the number of the last change is {last}, but {change} comes after it")
    return change


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
