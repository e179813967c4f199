"""The migrations of the schema in SQLite, in the order in which they are applied.

The list is append-only: opening a database written by an older version runs the functions that
are new to it. A released function is never changed.
"""

import sqlite3
from collections.abc import Callable

from talu.storage.sqlite3.index import build_index

__all__ = ["MIGRATIONS"]


def m001_sessions(db: sqlite3.Connection) -> None:
    """Create the sessions, the tree of their items, and the index of the items' words.

    A node is an item with a link to the previous one. A session is the path to its ``head``; a
    fork is another head in the same tree. A node's number is greater than its parent's and is
    never reused. ``change`` is the number of a session's last change, counted over all sessions: it
    orders the sessions, and reveals that a reader is out of date.
    """
    db.execute(
        """CREATE TABLE nodes (
            node INTEGER PRIMARY KEY AUTOINCREMENT,
            parent INTEGER REFERENCES nodes (node),
            item TEXT NOT NULL
        )"""
    )
    db.execute("CREATE INDEX nodes_by_parent ON nodes (parent)")
    db.execute(
        """CREATE TABLE sessions (
            session_id TEXT NOT NULL PRIMARY KEY,
            change INTEGER NOT NULL UNIQUE,
            head INTEGER REFERENCES nodes (node),
            marker TEXT NOT NULL,
            created_at_ms INTEGER NOT NULL,
            updated_at_ms INTEGER NOT NULL,
            record TEXT NOT NULL
        )"""
    )
    db.execute("CREATE INDEX sessions_by_head ON sessions (head)")
    db.execute("CREATE TABLE changes (last INTEGER NOT NULL)")
    db.execute("INSERT INTO changes VALUES (0)")
    db.execute(
        "CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2')"
    )


def m002_search_and_removals(db: sqlite3.Connection) -> None:
    """Index scripts without spaces, and titles; record the deletions in progress.

    ``title_row`` is a session's row in the index of titles. A removal is a deletion whose text is
    still on the disk: ``stage`` is the next step, and ``node`` the next item to remove.
    """
    db.execute("ALTER TABLE sessions ADD COLUMN title_row INTEGER")
    db.execute(
        """CREATE TABLE removals (
            removal INTEGER PRIMARY KEY AUTOINCREMENT,
            stage TEXT NOT NULL,
            node INTEGER
        )"""
    )
    db.execute("DROP TABLE words")
    build_index(db)


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [m001_sessions, m002_search_and_removals]
