"""Erases the items of deleted sessions, in steps that hold the database's lock only briefly.

A removal is a row of the table ``removals``, so that any process can continue it after a kill.
Its stages: ``items`` are deleted from the last one upwards, the ``index`` is rewritten without
their words (``merging`` until that is done), and the ``log``, the WAL file, is emptied.
"""

import logging
import sqlite3
import time

from talu.exceptions import StorageError
from talu.storage.sqlite3.file import File
from talu.storage.sqlite3.index import merge_index, remove_words

__all__ = [
    "add_removal",
    "advance_removals",
    "finish_removals",
    "has_removals",
    "remove_items",
]

LOGGER = logging.getLogger("talu.storage")
MAX_ITEMS = 250  # removed by one step
MAX_BYTES = 1_000_000  # of their text, unless a single item has more
LOG_SECONDS = 1.0  # maximum wait for readers in other processes
PAUSE_SECONDS = (
    0.1  # maximum pause between two steps, the interval at which other processes retry the lock
)


def add_removal(db: sqlite3.Connection, node: int | None) -> None:
    """Record that the items from ``node`` upwards have to be erased from the disk."""
    db.execute("INSERT INTO removals (stage, node) VALUES ('items', ?)", (node,))


def has_removals(db: sqlite3.Connection) -> bool:
    """Whether a removal is pending."""
    return db.execute("SELECT 1 FROM removals LIMIT 1").fetchone() is not None


def remove_items(db: sqlite3.Connection, node: int | None) -> int | None:
    """Delete a node and its ancestors, up to one that is still referenced.

    Returns:
        The node to continue with if there are too many for one step, else None.
    """
    found: list[int] = []
    size = 0
    while node is not None and not _is_needed(db, node, found[-1] if found else None):
        row = db.execute(
            "SELECT parent, coalesce(length(item), 0) FROM nodes WHERE node = ?", (node,)
        ).fetchone()
        if row is None:  # another removal has deleted it
            node = None
            break
        if found and (len(found) == MAX_ITEMS or size + row[1] > MAX_BYTES):
            break
        found.append(node)
        node, size = row[0], size + row[1]
    else:
        node = None
    remove_words(db, found)
    db.executemany("DELETE FROM nodes WHERE node = ?", [(each,) for each in found])
    return node


def _is_needed(db: sqlite3.Connection, node: int, child: int | None) -> bool:
    (needed,) = db.execute(
        "SELECT EXISTS (SELECT 1 FROM nodes WHERE parent = :node AND node IS NOT :child)"
        " OR EXISTS (SELECT 1 FROM sessions WHERE head = :node)",
        {"node": node, "child": child},
    ).fetchone()
    return bool(needed)


def finish_removals(file: File) -> bool:
    """Finish all pending removals.

    Returns:
        Whether the text is erased. If not, the reason is logged, and later writes continue.
    """
    try:
        more = True
        while more:
            began = time.monotonic()
            more = _step(file)
            time.sleep(min(PAUSE_SECONDS, time.monotonic() - began) if more else 0)
        deadline = time.monotonic() + LOG_SECONDS
        while not _empty_log(file):
            if time.monotonic() > deadline:
                LOGGER.warning(
                    "the text deleted from %s is still in %s-wal, because another process is "
                    "reading; a later write will erase it",
                    file.path,
                    file.path,
                )
                return False
            time.sleep(0.02)
    except StorageError as error:
        _log_failure(error)
        return False
    return True


def advance_removals(file: File, seconds: float = 0.0) -> None:
    """Continue pending removals, by one step or for the given time; errors are only logged."""
    deadline = time.monotonic() + seconds
    try:
        while _step(file):
            if time.monotonic() > deadline:
                return
        _empty_log(file)
    except StorageError as error:
        _log_failure(error)


def _log_failure(error: StorageError) -> None:
    LOGGER.warning("deleted text is still on the disk: %s", error)


def _step(file: File) -> bool:
    """Do one step of the pending work; return whether there may be more."""
    with file.writing() as db:
        stages = {stage for (stage,) in db.execute("SELECT DISTINCT stage FROM removals")}
        if "items" in stages:
            _remove_some(db)
        elif "index" in stages:
            merge_index(db, begin=True)
            db.execute("UPDATE removals SET stage = 'merging' WHERE stage = 'index'")
        elif "merging" in stages:
            if merge_index(db, begin=False):
                db.execute("UPDATE removals SET stage = 'log', node = NULL")
        else:
            return False
    return True


def _remove_some(db: sqlite3.Connection) -> None:
    removal, node = db.execute(
        "SELECT removal, node FROM removals WHERE stage = 'items' LIMIT 1"
    ).fetchone()
    node = remove_items(db, node)
    stage = "index" if node is None else "items"
    db.execute("UPDATE removals SET stage = ?, node = ? WHERE removal = ?", (stage, node, removal))


def _empty_log(file: File) -> bool:
    """Empty the WAL and delete the removals that waited for it; False if the WAL is in use."""
    with file.reading() as db:
        (last,) = db.execute("SELECT max(removal) FROM removals WHERE stage = 'log'").fetchone()
    if last is None:
        return True
    if not file.empty_log():
        return False
    with file.writing() as db:
        db.execute("DELETE FROM removals WHERE stage = 'log' AND removal <= ?", (last,))
    return True
