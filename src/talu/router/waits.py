"""Describes why a model cannot be asked now, as values."""

from dataclasses import dataclass

from talu.error_text import shortened
from talu.exceptions import EndpointError, TaluError
from talu.router.limits import Limits

__all__ = ["Cause", "Wait"]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a model cannot work until somebody repairs it, such as a wrong key.

    Attributes:
        code: of the error.
        message: of the error.
        remote: whether it is an ``EndpointError``.
        status: the HTTP status, if there was one.
    """

    code: str
    message: str
    remote: bool
    status: int | None = None

    @classmethod
    def of(cls, error: BaseException) -> "Cause":
        """The cause that an error names; without the error, which holds frames and requests."""
        code = error.code if isinstance(error, TaluError) else type(error).__name__
        remote = isinstance(error, EndpointError)
        return cls(code, shortened(str(error)), remote, getattr(error, "status", None))


@dataclass(frozen=True, slots=True)
class Wait:
    """A model cannot be asked now.

    Attributes:
        seconds: until it is worth trying again; infinite when that depends on another request.
        limits: the limits that it has reached; None when it pauses, or is being probed.
        reason: why it pauses.
        broken: why waiting does not help; None if it may.
    """

    seconds: float
    limits: Limits | None = None
    reason: str | None = None
    broken: Cause | None = None
