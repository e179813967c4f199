"""Decides when a model that failed is asked again, as values without a clock."""

from dataclasses import dataclass
from enum import Enum

from talu.exceptions import (
    DependencyError,
    EmptyPromptError,
    EndpointError,
    GenerationError,
    IOError,
    ModelError,
    ResourceError,
    TemplateError,
    TokenizerError,
)

__all__ = ["Health", "Verdict", "verdict_on"]

FIRST_COOLDOWN_S = 1.0  # doubled for each further failure in a row
MAX_COOLDOWN_S = 60.0
MAX_RETRY_AFTER_S = 3600.0
PASSED_ON = {"BAD_REQUEST", "GENERATION_CONTEXT_OVERFLOW", "GENERATION_UNSUPPORTED"}
RAISED = {"CONTENT_FILTERED", "GENERATION_TIMEOUT"}


class Verdict(Enum):
    """What an error before the first token means for the request and for the model."""

    RAISE = "the request fails: it would fail with every model"
    PASS_ON = "another model may answer this request; nothing is wrong with this one"
    COOL = "another model may answer, and this one needs a pause"
    BROKEN = "another model may answer, and this one does not work until somebody repairs it"


def verdict_on(error: BaseException) -> Verdict:
    """What to do after this error of an attempt."""
    match error:
        case EmptyPromptError():
            return Verdict.RAISE
        case GenerationError(code=code) if code in RAISED:
            return Verdict.RAISE
        case GenerationError(code=code) if code in PASSED_ON:
            return Verdict.PASS_ON
        case EndpointError(transient=False):
            return Verdict.BROKEN
        case GenerationError() | ResourceError():
            return Verdict.COOL
        case TemplateError():
            return Verdict.PASS_ON
        case ModelError() | TokenizerError() | DependencyError() | IOError():
            return Verdict.BROKEN
    return Verdict.RAISE


@dataclass(slots=True)
class Health:
    """Whether a model may be asked: after a failure it cools, then one request probes it.

    Times are seconds of any one clock.

    Attributes:
        failures: failures since the last success.
        until: end of the cooldown. It only grows.
        not_before: the part of it that the server asked for.
        failed_at: time of the last failure that counted.
        probing: a request is finding out whether the model works again.
    """

    failures: int = 0
    until: float = float("-inf")
    not_before: float = float("-inf")
    failed_at: float = float("-inf")
    probing: bool = False

    def ready_at(self, *, lone: bool) -> float:
        """The end of the cooldown; a lone model only waits when its server asks for it."""
        return self.not_before if lone else self.until

    def blocked(self, now: float, *, lone: bool) -> bool:
        """Whether it cannot be asked now."""
        return now < self.ready_at(lone=lone) or (self.probing and not lone)

    def begin(self) -> bool:
        """A request is sent; returns whether it is a probe."""
        probe = self.failures > 0
        self.probing = self.probing or probe
        return probe

    def succeed(self) -> None:
        """A first token has come."""
        self.failures = 0
        self.probing = False

    def fail(
        self,
        now: float,
        verdict: Verdict,
        retry_after: float | None = None,
        *,
        began_at: float = float("inf"),
        probe: bool = True,
    ) -> None:
        """An attempt has failed.

        Args:
            now: the time.
            verdict: what the error means.
            retry_after: the pause that the server asks for, in seconds.
            began_at: when the attempt began. Attempts that were running at the last failure fail
                for the same reason, so they count once, together.
            probe: the attempt was a probe.
        """
        if probe:
            self.probing = False
        if verdict not in (Verdict.COOL, Verdict.BROKEN):
            return
        if began_at < self.failed_at and verdict is Verdict.COOL:
            if retry_after is not None:
                asked = min(max(retry_after, 0.0), MAX_RETRY_AFTER_S)
                self.not_before = max(self.not_before, now + asked)
                self.until = max(self.until, self.not_before)
            return
        self.failed_at = now
        self.failures += 1
        pause = MAX_COOLDOWN_S
        if verdict is Verdict.COOL:
            pause = min(FIRST_COOLDOWN_S * (1 << min(self.failures - 1, 10)), MAX_COOLDOWN_S)
        if retry_after is not None:
            if self.failures == 1 and verdict is Verdict.COOL:
                pause = 0.0  # the server knows better
            asked = min(max(retry_after, 0.0), MAX_RETRY_AFTER_S)
            self.not_before = max(self.not_before, now + asked)
        self.until = max(self.until, now + pause, self.not_before)
