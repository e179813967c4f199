"""The statements on the rows of sessions and items in PostgreSQL.

A write transaction locks the row of the session that it changes, and the node that it appends to,
before it writes anything. A removal then leaves that node alone.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from talu.protocols import ChatRecord
from talu.storage.postgresql.removal import add_removal, has_removals
from talu.storage.postgresql.server import Connection
from talu.storage.rows import Node, SessionRow, record_text
from talu.storage.tables import Selection
from talu.storage.words import Query, index_form, token_text

__all__ = ["PostgresTables"]

COLUMNS = "change, session_id, marker, created_at_ms, updated_at_ms, record, head"
PAGE = """
    (%(before)s::bigint IS NULL OR change < %(before)s)
    AND (%(marker)s::text IS NULL OR marker = %(marker)s) ORDER BY change DESC LIMIT %(limit)s
"""
LIST = f"SELECT {COLUMNS}, NULL FROM talu.sessions WHERE {PAGE}"
# Walks from each matching item down the tree to the next matching one, so each node is visited
# once. The result maps the head of a session to the last matching item of its history.
SEARCH = f"""
    WITH RECURSIVE hits AS MATERIALIZED (SELECT node FROM talu.nodes WHERE {{texts}}),
    below (node, hit) AS (
        SELECT node, node FROM hits
        UNION ALL
        SELECT nodes.node, hit FROM below JOIN talu.nodes ON nodes.parent = below.node
        WHERE nodes.node NOT IN (SELECT node FROM hits)
    )
    SELECT {COLUMNS}, hit FROM talu.sessions LEFT JOIN below ON below.node = head
    WHERE (hit IS NOT NULL OR ({{titles}})) AND {PAGE}
"""
HISTORY = """
    WITH RECURSIVE path (node, parent, item) AS (
        SELECT node, parent, item FROM talu.nodes WHERE node = %s
        UNION ALL
        SELECT nodes.node, nodes.parent, nodes.item
        FROM path JOIN talu.nodes ON nodes.node = path.parent
    )
    SELECT node, parent, item FROM path ORDER BY node
"""
LIVE_NODES = """
    WITH RECURSIVE live (node) AS (
        SELECT head FROM talu.sessions WHERE head IS NOT NULL
        UNION
        SELECT parent FROM live JOIN talu.nodes USING (node) WHERE parent IS NOT NULL
    )
    SELECT node, parent, item FROM live JOIN talu.nodes USING (node) ORDER BY node
"""
ADD_ITEMS = """
    WITH given AS MATERIALIZED (
        SELECT nextval('talu.nodes_node_seq') AS node, place, item, words, form
        FROM unnest(%s::text[], %s::text[], %s::text[])
        WITH ORDINALITY AS texts (item, words, form, place)
    )
    INSERT INTO talu.nodes (node, parent, item, words, form)
    SELECT node, coalesce(lag(node) OVER (ORDER BY place), %s::bigint), item, words, form FROM given
    RETURNING node
"""
AT_ONCE = 500  # items that one statement adds


class PostgresTables:
    """The rows of a database; see ``Tables``.

    Args:
        db: a connection in a transaction.
        locking: lock what has to stay as it is until the end of a write transaction.
    """

    def __init__(self, db: Connection, *, locking: bool) -> None:
        self._db = db
        self._locking = locking

    def session(self, session_id: str) -> SessionRow | None:
        """See ``Tables.session``."""
        lock = " FOR UPDATE" if self._locking else ""
        statement = f"SELECT {COLUMNS} FROM talu.sessions WHERE session_id = %s{lock}"
        found = self._db.execute(statement, (session_id,)).fetchone()
        return None if found is None else _session_row(*found)

    def sessions(self) -> list[SessionRow]:
        """See ``Tables.sessions``."""
        rows = self._db.execute(f"SELECT {COLUMNS} FROM talu.sessions ORDER BY change")
        return [_session_row(*row) for row in rows]

    def page(self, selection: Selection) -> list[tuple[SessionRow, int | None]]:
        """See ``Tables.page``."""
        values: dict[str, object] = {
            "marker": selection.marker,
            "limit": selection.limit,
            "before": selection.before,
        }
        statement = LIST
        if selection.search is not None:
            texts, parameters = _condition("", selection.search)
            titles, _ = _condition("title_", selection.search)
            statement = SEARCH.format(texts=texts, titles=titles)
            values |= parameters
        return [(_session_row(*row), hit) for *row, hit in self._db.execute(statement, values)]

    def unlisted(self, limit: int) -> list[bytes]:
        """See ``Tables.unlisted``; the types of the columns leave nothing out."""
        return []

    def history(self, head: int | None) -> Iterator[Node]:
        """See ``Tables.history``."""
        return (_node(*row) for row in self._db.execute(HISTORY, (head,)))

    def live_nodes(self) -> list[Node]:
        """See ``Tables.live_nodes``."""
        return [_node(*row) for row in self._db.execute(LIVE_NODES)]

    def item(self, node: int) -> bytes | None:
        """See ``Tables.item``."""
        statement = "SELECT item FROM talu.nodes WHERE node = %s"
        found = self._db.execute(statement, (node,)).fetchone()
        return None if found is None else found[0].encode()

    def has_removals(self) -> bool:
        """See ``Tables.has_removals``."""
        return has_removals(self._db)

    def has_node(self, node: int) -> bool:
        """See ``Tables.has_node``."""
        statement = "SELECT 1 FROM talu.nodes WHERE node = %s FOR KEY SHARE"
        return self._db.execute(statement, (node,)).fetchone() is not None

    def add_items(self, parent: int | None, texts: Iterable[tuple[str, str]]) -> list[int]:
        """See ``Tables.add_items``."""
        items = [(item, *_searched(words)) for item, words in texts]
        nodes: list[int] = []
        for start in range(0, len(items), AT_ONCE):
            columns = map(list, zip(*items[start : start + AT_ONCE], strict=True))
            made = self._db.execute(ADD_ITEMS, [*columns, nodes[-1] if nodes else parent])
            nodes += sorted(node for (node,) in made)
        return nodes

    def add_session(
        self, record: ChatRecord, head: int | None, times: tuple[int, int] | None = None
    ) -> int | None:
        """See ``Tables.add_session``."""
        created, updated = times or (_now_ms(), _now_ms())
        values = _values(record, head) | {"created": created, "updated": updated}
        found = self._db.execute(
            "INSERT INTO talu.sessions (session_id, change, head, marker, created_at_ms,"
            " updated_at_ms, record, title_words, title_form)"
            " VALUES (%(session_id)s, nextval('talu.changes'), %(head)s, %(marker)s, %(created)s,"
            " %(updated)s, %(record)s, %(title_words)s, %(title_form)s)"
            " ON CONFLICT (session_id) DO NOTHING RETURNING change",
            values,
        ).fetchone()
        return None if found is None else found[0]

    def change_session(self, record: ChatRecord, head: int | None) -> int:
        """See ``Tables.change_session``."""
        (change,) = self._db.execute(
            "UPDATE talu.sessions SET change = nextval('talu.changes'), head = %(head)s,"
            " marker = %(marker)s, updated_at_ms = %(updated)s, record = %(record)s,"
            " title_words = %(title_words)s, title_form = %(title_form)s"
            " WHERE session_id = %(session_id)s RETURNING change",
            _values(record, head) | {"updated": _now_ms()},
        ).fetchone() or (0,)
        return int(change)

    def delete_session(self, session_id: str) -> None:
        """See ``Tables.delete_session``."""
        self._db.execute("DELETE FROM talu.sessions WHERE session_id = %s", (session_id,))

    def add_removal(self, head: int | None) -> None:
        """See ``Tables.add_removal``."""
        if head is not None:
            add_removal(self._db, head)

    def drop_history(self, head: int) -> None:
        """See ``Tables.drop_history``; a transaction of its own removes the items."""
        add_removal(self._db, head)


def _condition(prefix: str, query: Query) -> tuple[str, dict[str, str]]:
    """An SQL condition on the columns ``words`` and ``form``, and its parameters."""
    conditions, parameters = [], {}
    for number, pattern in enumerate(query.patterns):
        conditions.append(f"{prefix}words LIKE %(word{number})s")
        parameters[f"word{number}"] = pattern
    for number, literal in enumerate(query.literals):
        conditions.append(f"position(%(literal{number})s in {prefix}form) > 0")
        parameters[f"literal{number}"] = literal
    return " AND ".join(conditions), parameters


def _searched(text: str) -> tuple[str | None, str | None]:
    """The columns ``words`` and ``form`` of a text."""
    form = index_form(text)
    return (token_text(form), form) if form else (None, None)


def _values(record: ChatRecord, head: int | None) -> dict[str, Any]:
    title_words, title_form = _searched(record["title"] or "")
    return {
        "session_id": record["session_id"],
        "head": head,
        "marker": record["marker"],
        "record": record_text(record),
        "title_words": title_words,
        "title_form": title_form,
    }


def _session_row(
    change: int, session_id: str, marker: str, created: int, updated: int, record: str, head: int
) -> SessionRow:
    return SessionRow(
        change, session_id.encode(), marker.encode(), created, updated, record.encode(), head
    )


def _node(node: int, parent: int | None, item: str) -> Node:
    return Node(node, parent, item.encode())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
