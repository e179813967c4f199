"""Describes the state of a router's models as values."""

from dataclasses import dataclass

__all__ = ["RouterStatus", "TargetStatus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetStatus:
    """The state of one model of a router.

    Attributes:
        model: its name.
        requests: attempts so far.
        running: attempts that are being answered.
        waiting: requests that wait for this model, because of its limits or its cooldown.
        failures: attempts that failed.
        failures_in_a_row: failures since the last complete answer.
        cooling_s: seconds for which it is not asked; 0 when it can be.
        cooling_reason: why: the message of an error, or that its server takes no request now.
        probing: it has cooled, and one request is finding out whether it works again.
        last_error: message of the last failure.
        first_token_ms: moving average of the time to the first token; None without recent ones.
        first_token_p50_ms, first_token_p95_ms: percentiles of the last 200 times.
    """

    model: str
    requests: int = 0
    running: int = 0
    waiting: int = 0
    failures: int = 0
    failures_in_a_row: int = 0
    cooling_s: float = 0.0
    cooling_reason: str | None = None
    probing: bool = False
    last_error: str | None = None
    first_token_ms: float | None = None
    first_token_p50_ms: float | None = None
    first_token_p95_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterStatus:
    """The state of a router.

    Attributes:
        policy: name of the policy; None without one.
        requests: requests to the policy so far.
        hedged: additional requests that were sent because a model was slow: with ``hedge=True``, or
            because half of the caller's time was over.
        targets: one entry for each model, in the router's order.
    """

    policy: str | None = None
    requests: int = 0
    hedged: int = 0
    targets: tuple[TargetStatus, ...] = ()
