"""The full-text index of messages and titles in SQLite.

A row of ``words`` has the number of its node; a session refers to its row of ``titles``.
"""

import sqlite3
from collections.abc import Iterable

from talu.storage.rows import Damage, decode, words_of
from talu.storage.words import TOKENIZER, Query, index_form

__all__ = [
    "add_words",
    "build_index",
    "merge_index",
    "remove_words",
    "search_condition",
    "set_title",
]

MERGE_PAGES = 250  # rewritten by one step of a merge


def build_index(db: sqlite3.Connection) -> None:
    """Create the index of all stored text; unreadable items are left out."""
    tokenize = TOKENIZER.replace("'", "''")
    db.execute(f"CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = '{tokenize}')")
    db.execute(f"CREATE VIRTUAL TABLE titles USING fts5 (text, tokenize = '{tokenize}')")
    for node, item in db.execute("SELECT node, CAST(item AS BLOB) FROM nodes"):
        try:
            add_words(db, node, words_of(decode(item)))
        except Damage:
            continue
    sessions = db.execute("SELECT rowid, CAST(record AS BLOB) FROM sessions").fetchall()
    for row, record in sessions:
        try:
            title = decode(record).get("title")
        except Damage:
            continue
        if isinstance(title, str):
            made = set_title(db, None, title)
            db.execute("UPDATE sessions SET title_row = ? WHERE rowid = ?", (made, row))


def add_words(db: sqlite3.Connection, node: int, text: str) -> None:
    """Index the text of an item."""
    if text:
        db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (node, index_form(text)))


def remove_words(db: sqlite3.Connection, nodes: Iterable[int]) -> None:
    """Remove items from the index, in ascending order, which FTS5 writes in one batch."""
    db.executemany("DELETE FROM words WHERE rowid = ?", [(node,) for node in sorted(nodes)])


def set_title(db: sqlite3.Connection, row: int | None, title: str | None) -> int | None:
    """Index the title of a session, in its row of ``titles`` or a new one; return the row."""
    form = index_form(title or "")
    if row is not None:
        found = db.execute("SELECT text FROM titles WHERE rowid = ?", (row,)).fetchone()
        if found == (form,):
            return row
        db.execute("DELETE FROM titles WHERE rowid = ?", (row,))
    if not form:
        return None
    return db.execute("INSERT INTO titles (text) VALUES (?)", (form,)).lastrowid


def merge_index(db: sqlite3.Connection, *, begin: bool) -> bool:
    """Rewrite some pages of the index without deleted text; return whether it is complete.

    Args:
        db: a connection in a write transaction.
        begin: start a merge of everything deleted so far; later steps continue it.
    """
    done = True
    for table in ("words", "titles"):
        before = db.total_changes
        pages = -MERGE_PAGES if begin else MERGE_PAGES
        db.execute(f"INSERT INTO {table} ({table}, rank) VALUES ('merge', ?)", (pages,))
        done = (
            done and db.total_changes - before < 2
        )  # how FTS5 reports that nothing was left to do
    return done


def search_condition(table: str, query: Query) -> tuple[str, dict[str, str]]:
    """An SQL condition on the rows of ``words`` or ``titles``, and its parameters."""
    conditions, parameters = [], {}
    if query.words:
        conditions.append(f"{table} MATCH :match")
        parameters["match"] = query.match
    for number, literal in enumerate(query.literals):
        conditions.append(f"instr({table}.text, :literal{number})")
        parameters[f"literal{number}"] = literal
    return " AND ".join(conditions), parameters
