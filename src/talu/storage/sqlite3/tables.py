"""The statements on the rows of sessions and items in SQLite.

Texts are read as bytes, so that invalid UTF-8 is an error of its session, not of the statement.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator

from talu.error_text import shown
from talu.protocols import ChatRecord
from talu.storage.rows import Damage, Node, SessionRow, record_text
from talu.storage.sqlite3.index import add_words, search_condition, set_title
from talu.storage.sqlite3.removal import add_removal, has_removals, remove_items
from talu.storage.tables import Selection

__all__ = ["SQLiteTables"]

COLUMNS = (
    "change, CAST(coalesce(session_id, '') AS BLOB), CAST(coalesce(marker, '') AS BLOB),"
    " created_at_ms, updated_at_ms, CAST(record AS BLOB), head"
)
PAGE = """
    change < :before AND (:marker IS NULL OR marker = :marker) ORDER BY change DESC LIMIT :limit
"""
LIST = f"SELECT {COLUMNS}, NULL FROM sessions WHERE {PAGE}"
MAX_CHANGE = 2**63 - 1
# Values that the listing or the search does not reach: text and blobs sort after all numbers.
UNLISTED = f"""
    SELECT CAST(coalesce(session_id, '') AS BLOB) FROM sessions
    WHERE change >= {MAX_CHANGE} OR change IS NULL OR head >= '' LIMIT ?
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
# A node's number is greater than its parent's. The walk ends at a link that violates this, so that
# a damaged chain cannot form a cycle.
HISTORY = """
    WITH RECURSIVE path (node, parent) AS (
        SELECT node, parent FROM nodes WHERE node = ?
        UNION ALL
        SELECT nodes.node, nodes.parent FROM path JOIN nodes ON nodes.node = path.parent
        WHERE nodes.node < path.node
    )
    SELECT node, path.parent, CAST(item AS BLOB) FROM path JOIN nodes USING (node) ORDER BY node
"""
LIVE_NODES = """
    WITH RECURSIVE live (node) AS (
        SELECT head FROM sessions WHERE head IS NOT NULL
        UNION
        SELECT parent FROM live JOIN nodes USING (node) WHERE parent IS NOT NULL
    )
    SELECT node, parent, CAST(item AS BLOB) FROM live JOIN nodes USING (node) ORDER BY node
"""


class SQLiteTables:
    """The rows of a database; see ``Tables``."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def session(self, session_id: str) -> SessionRow | None:
        """See ``Tables.session``."""
        found = self._db.execute(
            f"SELECT {COLUMNS} FROM sessions WHERE session_id = ?", (session_id,)
        ).fetchone()
        return None if found is None else SessionRow(*found)

    def sessions(self) -> list[SessionRow]:
        """See ``Tables.sessions``."""
        rows = self._db.execute(f"SELECT {COLUMNS} FROM sessions ORDER BY change")
        return [SessionRow(*row) for row in rows]

    def page(self, selection: Selection) -> list[tuple[SessionRow, int | None]]:
        """See ``Tables.page``."""
        values: dict[str, object] = {
            "marker": selection.marker,
            "limit": selection.limit,
            "before": MAX_CHANGE if selection.before is None else selection.before,
        }
        statement = LIST
        if selection.search is not None:
            words, parameters = search_condition("words", selection.search)
            titles, _ = search_condition("titles", selection.search)
            statement = SEARCH.format(words=words, titles=titles)
            values |= parameters
        return [(SessionRow(*row), hit) for *row, hit in self._db.execute(statement, values)]

    def unlisted(self, limit: int) -> list[bytes]:
        """See ``Tables.unlisted``."""
        return [session_id for (session_id,) in self._db.execute(UNLISTED, (limit,))]

    def history(self, head: int | None) -> Iterator[Node]:
        """See ``Tables.history``."""
        return (Node(*row) for row in self._db.execute(HISTORY, (head,)))

    def live_nodes(self) -> list[Node]:
        """See ``Tables.live_nodes``."""
        return [Node(*row) for row in self._db.execute(LIVE_NODES)]

    def item(self, node: int) -> bytes | None:
        """See ``Tables.item``."""
        statement = "SELECT CAST(item AS BLOB) FROM nodes WHERE node = ?"
        found = self._db.execute(statement, (node,)).fetchone()
        return None if found is None else found[0]

    def has_node(self, node: int) -> bool:
        """See ``Tables.has_node``."""
        found = self._db.execute("SELECT 1 FROM nodes WHERE node = ?", (node,)).fetchone()
        return found is not None

    def has_removals(self) -> bool:
        """See ``Tables.has_removals``."""
        return has_removals(self._db)

    def add_items(self, parent: int | None, texts: Iterable[tuple[str, str]]) -> list[int]:
        """See ``Tables.add_items``."""
        nodes: list[int] = []
        for item, words in texts:
            statement = "INSERT INTO nodes (parent, item) VALUES (?, ?)"
            parent = int(self._db.execute(statement, (parent, item)).lastrowid or 0)
            nodes.append(parent)
            add_words(self._db, parent, words)
        return nodes

    def add_session(
        self, record: ChatRecord, head: int | None, times: tuple[int, int] | None = None
    ) -> int | None:
        """See ``Tables.add_session``."""
        session_id, marker, text = record["session_id"], record["marker"], record_text(record)
        if self._title_row(session_id) is not None:
            return None
        change, (created, updated) = self._next_change(), times or (_now_ms(), _now_ms())
        title_row = set_title(self._db, None, record["title"])
        self._db.execute(
            "INSERT INTO sessions (session_id, change, head, marker, created_at_ms, updated_at_ms,"
            " record, title_row) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (session_id, change, head, marker, created, updated, text, title_row),
        )
        return change

    def change_session(self, record: ChatRecord, head: int | None) -> int:
        """See ``Tables.change_session``."""
        session_id, change = record["session_id"], self._next_change()
        (title_row,) = self._title_row(session_id) or (None,)
        self._db.execute(
            "UPDATE sessions SET change = ?, head = ?, marker = ?, updated_at_ms = ?, record = ?,"
            " title_row = ? WHERE session_id = ?",
            (
                *(change, head, record["marker"], _now_ms(), record_text(record)),
                *(set_title(self._db, title_row, record["title"]), session_id),
            ),
        )
        return change

    def delete_session(self, session_id: str) -> None:
        """See ``Tables.delete_session``."""
        (title_row,) = self._title_row(session_id) or (None,)
        set_title(self._db, title_row, None)
        self._db.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))

    def add_removal(self, head: int | None) -> None:
        """See ``Tables.add_removal``."""
        add_removal(self._db, head)

    def drop_history(self, head: int) -> None:
        """See ``Tables.drop_history``."""
        rest = remove_items(self._db, head)
        if rest is not None:
            add_removal(self._db, rest)

    def _title_row(self, session_id: str) -> tuple[int | None] | None:
        """The row in ``titles`` of a session, if it has a title; None if there is no session."""
        found: tuple[int | None] | None = self._db.execute(
            "SELECT title_row FROM sessions WHERE session_id = ?", (session_id,)
        ).fetchone()
        return found

    def _next_change(self) -> int:
        """A number greater than that of all changes so far."""
        self._db.execute("UPDATE changes SET last = last + 1")
        change, last = self._db.execute(
            "SELECT (SELECT max(last) FROM changes), (SELECT max(change) FROM sessions)"
        ).fetchone()
        if not isinstance(change, int) or not (last is None or isinstance(last, int)):
            raise Damage(f"the number of the last change is {shown(change)} or {shown(last)}")
        if last is not None and change <= last:
            raise Damage(f"the number of the last change is {last}, but {change} comes after it")
        return change


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
