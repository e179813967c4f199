"""One model of a race, and its attempt, which hooks are told even without a router."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import talu.aio as aio
from talu.chat.observers import Observation
from talu.chat.outcome import Outcome
from talu.exceptions import TaluError
from talu.types import Attempt, FinishReason

__all__ = ["Racer"]


@dataclass(slots=True, eq=False)
class Racer:
    """A model that takes part in a race.

    Attributes:
        locate: finds its location.
        attempts: the attempts of the turn that asks it, once there is one.
        lost: another model was faster, which is why this one is cancelled.
    """

    locate: Callable[[], str | None]
    attempts: Callable[[], tuple[Attempt, ...]] = tuple
    lost: bool = False

    def told(self, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
        """The attempts; the last one of a model that lost says that another one was faster."""
        if not self.lost or not attempts or attempts[-1].error not in (None, "CANCELLED"):
            return attempts
        slower = replace(attempts[-1], error="SLOWER", reason="another model was faster")
        return (*attempts[:-1], slower)

    def attempt(
        self, outcome: Outcome[Any], error: BaseException | None, observation: Observation
    ) -> Attempt:
        """The attempt at this model so far."""
        code = error.code if isinstance(error, TaluError) else type(error).__name__
        cancelled = outcome.finish_reason is FinishReason.CANCELLED
        if cancelled or aio.was_cancelled(error):
            code, reason = "CANCELLED", "the request was cancelled"
        else:
            reason = str(error)
        failed = error is not None or cancelled
        return Attempt(
            model=outcome.model,
            location=self.locate(),
            duration_ms=observation.elapsed_ms(),
            first_token_ms=observation.first_token_ms,
            error=code if failed else None,
            reason=reason if failed else None,
        )
