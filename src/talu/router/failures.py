"""Makes the error of a request that no model answered."""

from collections.abc import Mapping, Sequence

from talu.error_text import shown
from talu.exceptions import EndpointError, GenerationError
from talu.types import Attempt

__all__ = ["in_total", "no_answer", "said"]


def no_answer(attempts: Sequence[Attempt], errors: Sequence[BaseException]) -> GenerationError:
    """The error after these attempts, each of which ended with an error."""
    message = f"no model answered: {said(attempts)}"
    error = in_total(message, {"models": [each.model for each in attempts]}, errors, None)
    error.attempts = tuple(attempts)
    return error


def said(attempts: Sequence[Attempt]) -> str:
    """What each model said, as a part of a sentence."""
    return "; ".join(f"{shown(each.model)}: {each.reason}" for each in attempts)


def in_total(
    message: str,
    details: Mapping[str, object],
    errors: Sequence[BaseException],
    cooling: Mapping[str, float] | None,
) -> GenerationError:
    """An error that stands for several.

    Args:
        message: its message.
        details: its details.
        errors: what the models raised; the last one is its cause.
        cooling: the seconds after which models can be asked, if some could not be asked.
    """
    remote = [error for error in errors if isinstance(error, EndpointError)]
    error: GenerationError
    if cooling is not None:
        wait = min(cooling.values(), default=None)
        error = EndpointError(message, "MODELS_COOLING", details, retry_after=wait, transient=True)
    elif not remote or len(remote) < len(errors):
        error = GenerationError(message, details=details)
    else:
        transient, last = any(each.transient for each in remote), remote[-1]
        error = EndpointError(message, last.code, details, status=last.status, transient=transient)
    error.__cause__ = errors[-1] if errors else None
    return error
