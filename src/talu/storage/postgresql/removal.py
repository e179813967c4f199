"""Removes the items of deleted sessions from PostgreSQL, in short transactions.

A removal is a row of the table ``removals``, so that any process can continue it after a kill. One
removal runs at a time in a database. It locks the nodes that nothing refers to, which waits for
transactions that append to one of them, and then looks again before it deletes.
"""

import logging
import time

from talu.exceptions import StorageError
from talu.storage.postgresql.migrations import LOCKS
from talu.storage.postgresql.server import Connection, Server

__all__ = ["add_removal", "advance_removals", "finish_removals", "has_removals"]

LOGGER = logging.getLogger("talu.storage")
MAX_ITEMS = 250  # removed by one step
MAX_BYTES = 1_000_000  # of their text, unless a single item has more
# A node and its ancestors, up to one that something else refers to.
REMOVABLE = """
    WITH RECURSIVE chain (node, parent, size, place) AS (
        SELECT node, parent, octet_length(item)::bigint, 1 FROM talu.nodes
        WHERE node = %(node)s
        AND NOT EXISTS (SELECT FROM talu.nodes AS other WHERE other.parent = nodes.node)
        AND NOT EXISTS (SELECT FROM talu.sessions WHERE head = nodes.node)
        UNION ALL
        SELECT nodes.node, nodes.parent, size + octet_length(item), place + 1
        FROM chain JOIN talu.nodes ON nodes.node = chain.parent
        WHERE place < %(items)s AND size + octet_length(item) <= %(bytes)s
        AND NOT EXISTS (
            SELECT FROM talu.nodes AS other
            WHERE other.parent = nodes.node AND other.node <> chain.node
        )
        AND NOT EXISTS (SELECT FROM talu.sessions WHERE head = nodes.node)
    )
    SELECT node, parent FROM chain ORDER BY place
"""


def add_removal(db: Connection, node: int) -> None:
    """Record that the items from ``node`` upwards have to be removed."""
    db.execute("INSERT INTO talu.removals (node) VALUES (%s)", (node,))


def has_removals(db: Connection) -> bool:
    """Whether a removal is pending."""
    return db.execute("SELECT 1 FROM talu.removals LIMIT 1").fetchone() is not None


def finish_removals(server: Server) -> bool:
    """Finish all pending removals; False, because only a VACUUM erases the text from the disk."""
    try:
        while _step(server, wait=True):
            pass
    except StorageError as error:
        _log_failure(error)
    return False


def advance_removals(server: Server, seconds: float = 0.0) -> None:
    """Continue pending removals, by one step or for the given time; errors are only logged.

    If another process is removing items, they are left to it and to later writes.
    """
    deadline = time.monotonic() + seconds
    try:
        while _step(server, wait=False) and time.monotonic() <= deadline:
            pass
    except StorageError as error:
        _log_failure(error)


def _log_failure(error: StorageError) -> None:
    LOGGER.warning("deleted text is still in the database: %s", error)


def _step(server: Server, *, wait: bool) -> bool:
    """Do one step of the pending work; return whether there may be more."""
    with server.writing() as db:
        if wait:
            db.execute("SELECT pg_advisory_xact_lock(%s, 2)", (LOCKS,))
        elif db.execute("SELECT pg_try_advisory_xact_lock(%s, 2)", (LOCKS,)).fetchone() != (True,):
            return False
        statement = "SELECT removal, node FROM talu.removals ORDER BY removal LIMIT 1"
        found = db.execute(statement).fetchone()
        if found is None:
            return False
        removal, node = found
        node = _remove_items(db, node)
        if node is None:
            db.execute("DELETE FROM talu.removals WHERE removal = %s", (removal,))
        else:
            statement = "UPDATE talu.removals SET node = %s WHERE removal = %s"
            db.execute(statement, (node, removal))
    return True


def _remove_items(db: Connection, node: int) -> int | None:
    """Delete a node and its ancestors, up to one that is still needed.

    Returns:
        The node to continue with; None if nothing was left to delete.
    """
    values = {"node": node, "items": MAX_ITEMS, "bytes": MAX_BYTES}
    seen = [number for number, _ in db.execute(REMOVABLE, values)]
    db.execute("SELECT FROM talu.nodes WHERE node = ANY(%s) FOR UPDATE", (seen,))
    still = [row for row in db.execute(REMOVABLE, values) if row[0] in seen]
    numbers = [number for number, _ in still]
    db.execute("DELETE FROM talu.nodes WHERE node = ANY(%s)", (numbers,))
    parent: int | None = still[-1][1] if still else None
    if parent is None or not db.execute(REMOVABLE, values | {"node": parent}).fetchone():
        return None
    return parent
