"""Decides when a model that failed is asked again, as values without a clock."""

from dataclasses import dataclass, field
from enum import Enum
from math import inf

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
    ValidationError,
)

__all__ = ["STALL_S", "Health", "Verdict", "is_cut_off", "is_refused", "verdict_on"]

FIRST_PAUSE_S = 1.0  # doubled for each further pause without a complete answer between them
MAX_PAUSE_S = 60.0
MAX_ASKED_S = 3600.0  # of a pause that a server asks for
STALL_S = 5.0  # without a first token, when the time of the caller is over
TOLERATED = 3  # failures in a row, after a success
RECENT_S = 60.0  # age of a success that excuses a failure
CUT_OFFS = 3  # in a row, before any success
ENOUGH_ROOM = 64  # requests at once, which need no further bound
REQUEST_TIMEOUT = 408  # a status; such a server may have worked on the request
PASSED_ON = {
    "BAD_REQUEST",
    "GENERATION_CONTEXT_OVERFLOW",
    "GENERATION_UNSUPPORTED",
    "UNSUITABLE",
}
RAISED = {"CONTENT_FILTERED", "GENERATION_TIMEOUT", "POLICY_FAILED"}


class Verdict(Enum):
    """What an error means for the request (before its first token) and for the model."""

    RAISE = "the request fails: it would fail with every model"
    PASS_ON = "another model may answer this request; nothing is wrong with this one"
    FAILED = "another model may answer; this one pauses if it fails often"
    DOWN = "another model may answer; this one cannot be reached, and pauses"
    HANGS = "the time of several callers in a row was over before its first token; it pauses"
    BROKEN = "another model may answer; this one does not work until somebody repairs it"

    @property
    def counts(self) -> bool:
        """Whether it is a failure of the model."""
        return self not in (Verdict.RAISE, Verdict.PASS_ON)


def verdict_on(error: BaseException, *, opening: bool = False) -> Verdict:
    """What to do after this error of an attempt.

    Args:
        error: the error.
        opening: it was raised while the model was opened, before it saw the request: a wrong
            argument is then one of the model's configuration.
    """
    match error:
        case ValidationError() if opening:
            return Verdict.BROKEN
        case ValidationError(code="UNSUPPORTED", details={"param": "response_format"}):
            return Verdict.PASS_ON
        case EmptyPromptError():
            return Verdict.RAISE
        case GenerationError(code=code) if code in RAISED:
            return Verdict.RAISE
        case GenerationError(code=code) if code in PASSED_ON:
            return Verdict.PASS_ON
        case EndpointError(transient=False):
            return Verdict.BROKEN
        case EndpointError(details={"connected": False}):
            return Verdict.DOWN
        case GenerationError() | ResourceError():
            return Verdict.FAILED
        case TemplateError():
            return Verdict.PASS_ON
        case ModelError() | TokenizerError() | DependencyError() | IOError():
            return Verdict.BROKEN
    return Verdict.RAISE


def is_cut_off(error: BaseException) -> bool:
    """Whether the caller's time limit ended the attempt. The request fails.

    But a model that hangs would stay the first choice for ever if that was never a failure of the
    model; see ``Health.cut_off``.
    """
    return isinstance(error, GenerationError) and error.code == "GENERATION_TIMEOUT"


def is_refused(error: BaseException) -> bool:
    """Whether a server answered before it computed anything, so that no tokens were used."""
    return (
        isinstance(error, EndpointError)
        and error.status is not None
        and 400 <= error.status < 500
        and error.status != REQUEST_TIMEOUT
    )


@dataclass(slots=True)
class Streak:
    """Failures in a row, which a recent success excuses while they are few."""

    failures: int = 0
    succeeded_at: float = -inf

    def succeed(self, now: float) -> None:
        """One more success."""
        self.failures, self.succeeded_at = 0, now

    def fail(self, now: float) -> bool:
        """One more failure; returns whether there are too many."""
        self.failures += 1
        return self.failures > TOLERATED or now - self.succeeded_at > RECENT_S


@dataclass(slots=True)
class Health:
    """Whether a model may be asked: when it fails too often it pauses, then one request probes it.

    Failures before the first token and failures after it are counted apart: a server whose answers
    always break gives first tokens all the time. Times are seconds of any one clock.

    Attributes:
        failures: failures since the last complete answer. Those of attempts that were running when
            the last pause began have the same cause, and count once.
        until: end of the pause. It only grows.
        not_before: the part of it that the server asked for.
        probing: a request is finding out whether the model works again.
        room: requests that may wait for their first token at the same time. It is 1 after a pause
            that the server asked for, and one more with every first token, so that the requests
            that have waited do not all begin at the same moment.
    """

    failures: int = 0
    until: float = -inf
    not_before: float = -inf
    probing: bool = False
    room: float = inf
    _cut_offs: int = 0  # since the last first token
    _cut_off_at: float = -inf  # the last one
    _pauses: int = 0  # since the last complete answer
    _paused_at: float = -inf  # start of the last one
    _unproven: bool = False  # there was no first token since
    _starts: Streak = field(default_factory=Streak)
    _answers: Streak = field(default_factory=Streak)

    def ready_at(self, *, lone: bool) -> float:
        """The end of the pause; a lone model only waits when its server asks for it."""
        return self.not_before if lone else self.until

    def blocked(self, now: float, *, lone: bool, starting: int = 0) -> bool:
        """Whether it cannot be asked now, when so many requests wait for their first token."""
        if now < self.ready_at(lone=lone) or starting >= self.room:
            return True
        return self.probing and not lone

    def begin(self) -> bool:
        """An attempt begins; returns whether it is a probe."""
        self.probing = self.probing or self._unproven
        return self._unproven

    def first_token(self, now: float, *, began_at: float) -> None:
        """An attempt that began at this time has given its first token: others may follow it."""
        self._cut_offs = 0
        if began_at >= self.not_before:
            self.room = self.room + 1 if self.room < ENOUGH_ROOM else inf
        if began_at >= self._paused_at:
            self._starts.succeed(now)
            self.probing = self._unproven = False

    def complete(self, now: float, *, began_at: float) -> None:
        """An attempt has ended with a complete answer, so its model works again."""
        if began_at >= self._paused_at:
            self._answers.succeed(now)
            self.failures = self._pauses = 0

    def close(self, now: float, seconds: float) -> None:
        """Pause because the server said that it takes no request for so long."""
        self.not_before = max(self.not_before, now + min(max(seconds, 0.0), MAX_ASKED_S))
        self.until = max(self.until, self.not_before)
        self.room = 1

    def cut_off(self, now: float, *, began_at: float) -> bool:
        """A caller gave up an attempt before its first token; returns whether that says something.

        One says little: the caller may have little time. Several in a row, one after the other,
        mean that the model hangs.
        """
        if began_at >= self._cut_off_at:  # those beside the last one have the same cause
            self._cut_offs += 1
            self._cut_off_at = now
        return self._cut_offs >= CUT_OFFS

    def fail(
        self,
        now: float,
        verdict: Verdict,
        retry_after: float | None = None,
        *,
        began_at: float,
        probe: bool = False,
        answering: bool = False,
    ) -> None:
        """An attempt has failed.

        Args:
            now: the time.
            verdict: what the error means; it counts.
            retry_after: the pause that the server asks for, in seconds.
            began_at: when the attempt began.
            probe: the attempt was a probe.
            answering: the attempt had given its first token.
        """
        if probe:
            self.probing = False
        if retry_after is not None:
            self.close(now, retry_after)
        if began_at < self._paused_at and verdict is not Verdict.BROKEN:
            return
        self.failures += 1
        streak = self._answers if answering else self._starts
        too_many = streak.fail(now)
        if too_many or probe or retry_after is not None or verdict is not Verdict.FAILED:
            self._pause(now, self._length(verdict, retry_after))

    def _length(self, verdict: Verdict, retry_after: float | None) -> float:
        """The seconds of the next pause, besides what the server asked for."""
        if verdict is Verdict.BROKEN:
            return MAX_PAUSE_S
        if retry_after is not None and self._pauses == 0:
            return 0.0  # the server knows better
        return min(FIRST_PAUSE_S * (1 << min(self._pauses, 10)), MAX_PAUSE_S)

    def _pause(self, now: float, seconds: float) -> None:
        self.until = max(self.until, now + seconds)
        self._paused_at = now
        self._pauses += 1
        self._unproven = True
        self._starts, self._answers = Streak(), Streak()
