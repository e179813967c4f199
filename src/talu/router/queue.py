"""Keeps the requests that wait for one model, in order, whatever event loop they belong to."""

import asyncio
from collections import OrderedDict
from contextlib import suppress

__all__ = ["Queue", "Ticket"]


class Ticket:
    """A request that waits for models, or is answered by one; it belongs to the running loop."""

    def __init__(self) -> None:
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    @property
    def dead(self) -> bool:
        """Whether its loop was closed. Nothing can end the request any more."""
        return self._loop is not None and self._loop.is_closed()

    def settle(self, future: "asyncio.Future[None]") -> None:
        """Set the future of this ticket's loop, from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(_settle, future)


class Queue:
    """The waiting requests of one model, with what wakes each of them. Its owner has the lock."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Ticket, asyncio.Future[None] | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, ticket: Ticket) -> None:
        """Join the end of the queue."""
        self._waiting[ticket] = None

    def leave(self, ticket: Ticket) -> None:
        """Leave the queue."""
        self._waiting.pop(ticket, None)

    def others_first(self, ticket: Ticket) -> bool:
        """Whether another request is the first one, of those whose loop is open."""
        first = next(iter(self._waiting), ticket)
        while first.dead and first is not ticket:
            self.leave(first)
            first = next(iter(self._waiting), ticket)
        return first is not ticket

    def changed(self, ticket: Ticket) -> "asyncio.Future[None]":
        """A future of the running loop that ends when this request is woken."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        return future

    def wake_first(self) -> None:
        """Let the first request try again."""
        if self._waiting:
            self._wake(next(iter(self._waiting)))

    def wake_all(self) -> None:
        """Let all requests try again."""
        for ticket in self._waiting:
            self._wake(ticket)

    def _wake(self, ticket: Ticket) -> None:
        future, self._waiting[ticket] = self._waiting[ticket], None
        if future is not None:
            ticket.settle(future)

    def drop_dead(self) -> None:
        """Remove all requests whose loop was closed."""
        for ticket in [ticket for ticket in self._waiting if ticket.dead]:
            self.leave(ticket)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
