"""Declares the statements on the rows of sessions and items that each kind of database has."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from talu.protocols import ChatRecord
from talu.storage.rows import Node, SessionRow
from talu.storage.words import Query

__all__ = ["Selection", "Tables"]


class Selection(NamedTuple):
    """The sessions of a page of a listing.

    Attributes:
        search: what a message or the title must contain; None for all sessions.
        marker: the marker of the sessions; None for any.
        limit: the maximum number of sessions.
        before: only sessions whose last change has a smaller number; None for the first page.
    """

    search: Query | None
    marker: str | None
    limit: int
    before: int | None


class Tables(Protocol):
    """The rows of sessions and items, within one transaction.

    The methods from ``has_node`` on need a write transaction.
    """

    def session(self, session_id: str) -> SessionRow | None:
        """A session. In a write transaction, no other one can change it until this one ends."""

    def sessions(self) -> Sequence[SessionRow]:
        """All sessions, the one that was changed first at the beginning."""

    def page(self, selection: Selection) -> Sequence[tuple[SessionRow, int | None]]:
        """The selected sessions, most recently changed first.

        With each comes the last item of its history that a search has found; None for none.
        """

    def unlisted(self, limit: int) -> Sequence[bytes]:
        """The ids of damaged sessions that ``page`` may leave out."""

    def history(self, head: int | None) -> Iterable[Node]:
        """The nodes from the first one to ``head``."""

    def live_nodes(self) -> Sequence[Node]:
        """The nodes of all histories, each after its parent."""

    def item(self, node: int) -> bytes | None:
        """The JSON text of an item; None if there is none."""

    def has_removals(self) -> bool:
        """Whether items still have to be removed."""

    def has_node(self, node: int) -> bool:
        """Whether a node exists; it then exists until the transaction ends."""

    def add_items(self, parent: int | None, texts: Iterable[tuple[str, str]]) -> list[int]:
        """Append items below a node, each given as JSON and as text to index; return their nodes.

        A node's number is greater than its parent's, and never reused.
        """

    def add_session(
        self, record: ChatRecord, head: int | None, times: tuple[int, int] | None = None
    ) -> int | None:
        """Create a session, with the current or the given times.

        Returns:
            The number of the change; None if a session has this id, and nothing was stored.
        """

    def change_session(self, record: ChatRecord, head: int | None) -> int:
        """Replace all but the times of a session's creation; return the number of the change."""

    def delete_session(self, session_id: str) -> None:
        """Delete a session; its items stay."""

    def add_removal(self, head: int | None) -> None:
        """Record that the items of a deleted history have to be removed, unless shared."""

    def drop_history(self, head: int) -> None:
        """Remove the items of a history that an edit has replaced, or record that this remains."""
