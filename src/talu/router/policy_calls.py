"""Calls the methods of policies, which users may have written, and checks what they return."""

import asyncio
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from talu.deadline import Deadline
from talu.error_text import shortened, shown
from talu.exceptions import GenerationError, TaluError, ValidationError
from talu.protocols import Backend
from talu.router.policies import Policy, choice
from talu.router.status import TargetStatus
from talu.threads import beside_loop
from talu.types import Request

__all__ = ["checked_models", "order_of", "reason_against"]

P = ParamSpec("P")
T = TypeVar("T")
SHOWN_MODELS = 10  # in an error


def checked_models(policy: Policy, known: Sequence[str]) -> list[str]:
    """The names of the policy's models, of the known ones.

    Raises:
        ValidationError: ``check`` has raised, or returned something else.
    """
    try:
        checked: object = policy.check(list(known))
    except ValidationError:
        raise
    except Exception as error:
        raise ValidationError(_raised(policy, "check", error), details=_about(policy)) from error
    return _models(policy, "check", checked, known)


async def order_of(policy: Policy, request: Request, targets: Sequence[TargetStatus]) -> list[str]:
    """The names of the models to ask, best first.

    Raises:
        ValidationError: ``order`` has returned something else.
        GenerationError: ``order`` has raised, or did not return before the request's deadline.
    """
    chosen: object = await _called(policy, policy.order, request.deadline, request, targets)
    return _models(policy, "order", chosen, [target.model for target in targets])


async def reason_against(policy: Policy, backend: Backend, request: Request) -> str | None:
    """Why a model cannot answer the request; None if it can.

    Raises:
        ValidationError: ``unfit`` has returned something else.
        GenerationError: ``unfit`` has raised, or did not return before the request's deadline.
    """
    reason: object = await _called(policy, policy.unfit, request.deadline, backend, request)
    if reason is None or (isinstance(reason, str) and reason):
        return reason
    raise ValidationError(
        f"{type(policy).__name__}.unfit must return a text that says why the model cannot answer, "
        f"or None if it can, and returned {shown(reason)}",
        details=_about(policy),
    )


async def _called(
    policy: Policy,
    method: Callable[P, T],
    deadline: Deadline | None,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Call a method, in a thread if a user has written it: it may take its time."""
    if getattr(method, "__module__", None) == Policy.__module__:
        return method(*args, **kwargs)

    def call() -> T:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            wrong = _raised(policy, getattr(method, "__name__", "order"), error)
            raise GenerationError(wrong, "POLICY_FAILED", _about(policy)) from error

    try:
        async with asyncio.timeout(None if deadline is None else deadline.left):
            return await beside_loop(call)
    except TimeoutError:
        if deadline is None:
            raise
        raise deadline.error() from None


def _models(policy: Policy, method: str, chosen: object, known: Sequence[str]) -> list[str]:
    if (models := choice(chosen, known)) is None:
        names = ", ".join(map(shown, known[:SHOWN_MODELS]))
        raise ValidationError(
            f"{type(policy).__name__}.{method} must return a list of some of the models {names}, "
            f"each once, and returned {shown(chosen)}",
            details=_about(policy),
        )
    return models


def _raised(policy: Policy, method: str, error: Exception) -> str:
    said = error if isinstance(error, TaluError) else f"{type(error).__name__}: {error}"
    return f"{type(policy).__name__}.{method} of the policy raised {shortened(str(said))}"


def _about(policy: Policy) -> dict[str, object]:
    return {"param": "policy", "value": type(policy).__name__}
