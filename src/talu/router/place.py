"""Keeps the place of a request in the queues of several models."""

import asyncio
from collections.abc import Sequence
from typing import Self

from talu.exceptions import ResourceError
from talu.router.queue import Ticket
from talu.router.targets import Target

__all__ = ["Place"]


class Place:
    """The place of one request in the queues of models, until ``leave``.

    Attributes:
        ticket: identifies the request in the queues.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        """Join the queues that are not full.

        Raises:
            ResourceError: all of them are full.
        """
        self.ticket = Ticket()
        self._entered: list[Target] = []
        full = []
        for target in targets:
            try:
                target.enter(self.ticket)
                self._entered.append(target)
            except ResourceError as error:
                full.append(error)
        if not self._entered:
            raise full[0]

    def changes(self) -> "list[asyncio.Future[None]]":
        """For each queue a future that ends when it is worth trying again."""
        return [target.changed(self.ticket) for target in self._entered]

    def leave(self) -> None:
        """Leave the queues; idempotent."""
        entered, self._entered = self._entered, []
        for target in entered:
            target.leave(self.ticket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
