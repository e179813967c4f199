"""Lets the requests of a router without a policy or limits go to the models that they name."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from talu.first_use import loaded
from talu.protocols import Backend

if TYPE_CHECKING:
    from talu.router.status import RouterStatus

__all__ = ["Unrouted"]


class Unrouted:
    """Does what ``Routing`` does when there is nothing to choose, to count or to wait for.

    Args:
        models: the names of all models.
    """

    policy = None

    def __init__(self, models: list[str]) -> None:
        self.models = models

    def backend(self, *, offline: bool) -> Backend:
        """There is no policy that could be a backend."""
        raise RuntimeError("there is no policy")

    def close(self) -> None:
        """No request waits here."""

    def counted(self, name: str, backend: Backend) -> Backend:
        """The backend itself."""
        return backend

    def opening(self, name: str) -> AbstractContextManager[None]:
        """Failures are not counted."""
        return nullcontext()

    def status(self) -> "RouterStatus":
        """No model has a state."""
        status: RouterStatus = loaded("talu.router.status", "RouterStatus")(
            policy=None, requests=0, hedged=0, targets=()
        )
        return status
