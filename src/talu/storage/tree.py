"""The tree of items, in which each node refers to its predecessor, so that forks share history."""

import sqlite3
from collections.abc import Iterable
from typing import Any

from talu.storage.index import add_words
from talu.storage.rows import Damage, decode, words_of

__all__ = ["LIVE_NODES", "add_items", "first_question", "has_node", "read_path"]

# A node's number is greater than its parent's. The walk ends at a link that violates this, so that
# a damaged chain cannot form a cycle.
PATH = """
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


def add_items(
    db: sqlite3.Connection, parent: int | None, texts: Iterable[tuple[str, str]]
) -> list[int]:
    """Append items below a node, each given as JSON and as text to index; return their nodes."""
    nodes: list[int] = []
    for item, words in texts:
        made = db.execute("INSERT INTO nodes (parent, item) VALUES (?, ?)", (parent, item))
        parent = int(made.lastrowid or 0)
        nodes.append(parent)
        add_words(db, parent, words)
    return nodes


def has_node(db: sqlite3.Connection, node: int) -> bool:
    """Whether a node exists."""
    return db.execute("SELECT 1 FROM nodes WHERE node = ?", (node,)).fetchone() is not None


def read_path(db: sqlite3.Connection, head: int | None) -> tuple[list[int], list[dict[str, Any]]]:
    """The nodes and the items of a history, in order.

    Raises:
        Damage: the history is damaged; the message says where.
    """
    nodes: list[int] = []
    items: list[dict[str, Any]] = []
    for place, (node, parent, item) in enumerate(db.execute(PATH, (head,))):
        if parent != (nodes[-1] if nodes else None):
            raise Damage(f"item {place}: the item before it is missing")
        try:
            items.append(decode(item))
        except Damage as error:
            raise Damage(f"item {place}: {error}") from error
        nodes.append(node)
    if head != (nodes[-1] if nodes else None):
        raise Damage("its last item is missing")
    return nodes, items


def first_question(db: sqlite3.Connection, head: int | None) -> str | None:
    """The text of the first user message of a history; None if there is none.

    Raises:
        Damage: an item before it, or the message itself, is damaged.
    """
    for _, _, item in db.execute(PATH, (head,)):
        record = decode(item)
        if record.get("role") == "user" and (text := words_of(record)):
            return text
    return None
