"""Reads histories: the items from the first to the last one of a session."""

from collections.abc import Iterable
from typing import Any

from talu.storage.rows import Damage, Node, decode, words_of

__all__ = ["first_question", "read_history"]


def read_history(head: int | None, nodes: Iterable[Node]) -> tuple[list[int], list[dict[str, Any]]]:
    """The numbers and the items of the nodes that lead to ``head``, in order.

    Raises:
        Damage: the history is damaged; the message says where.
    """
    numbers: list[int] = []
    items: list[dict[str, Any]] = []
    for place, (node, parent, item) in enumerate(nodes):
        if parent != (numbers[-1] if numbers else None):
            raise Damage(f"item {place}: the item before it is missing")
        try:
            items.append(decode(item))
        except Damage as error:
            raise Damage(f"item {place}: {error}") from error
        numbers.append(node)
    if head != (numbers[-1] if numbers else None):
        raise Damage("its last item is missing")
    return numbers, items


def first_question(nodes: Iterable[Node]) -> str | None:
    """The text of the first user message of a history; None if there is none.

    Raises:
        Damage: an item before it, or the message itself, is damaged.
    """
    for _, _, item in nodes:
        record = decode(item)
        if record.get("role") == "user" and (text := words_of(record)):
            return text
    return None
