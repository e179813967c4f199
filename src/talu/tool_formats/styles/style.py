"""Declares what reads the arguments of one call."""

from typing import NamedTuple, Protocol

__all__ = ["ArgumentsReader", "Step"]


class Step(NamedTuple):
    """What was read.

    Attributes:
        json: the next piece of the JSON text.
        at: up to where the text was read.
        ended: whether the arguments are complete; what follows is no part of them.
    """

    json: str
    at: int
    ended: bool = False


class ArgumentsReader(Protocol):
    """Reads arguments as they arrive."""

    def read(self, text: str, at: int) -> Step:
        """Read on from a place; what is left unread is given again, with more after it."""
        ...

    def finish(self) -> str:
        """The JSON text that ends arguments if nothing follows; empty if they are not complete."""
        ...
