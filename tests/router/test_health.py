"""When a model that failed is asked again, with times as values."""

import pytest

from talu.exceptions import (
    EmptyPromptError,
    EndpointError,
    GenerationError,
    ModelNotFoundError,
    ResourceError,
    StateError,
    StructuredOutputError,
    TaluError,
    TemplateError,
    ValidationError,
)
from talu.router.health import Health, Verdict, verdict_on

FAILED, DOWN, BROKEN = Verdict.FAILED, Verdict.DOWN, Verdict.BROKEN


def ask(
    health: Health, now: float, outcome: Verdict | None, retry_after: float | None = None
) -> None:
    """One attempt, which ends at once: with a complete answer, or with a failure."""
    probe = health.begin()
    if outcome is None:
        health.first_token(now, began_at=now)
        health.complete(now, began_at=now)
    else:
        health.fail(now, outcome, retry_after, began_at=now, probe=probe)


def broken_off(health: Health, now: float) -> None:
    """One attempt that gives its first token and breaks."""
    health.begin()
    health.first_token(now, began_at=now)
    health.fail(now, FAILED, began_at=now, answering=True)


def paused(*failures: tuple[float, float | None]) -> Health:
    """The state after failures at these times, with what the server asked for."""
    health = Health()
    for now, retry_after in failures:
        ask(health, now, FAILED, retry_after)
    return health


def test_the_pause_doubles_with_each_failure_up_to_a_minute() -> None:
    health, pauses = Health(), []
    for _ in range(9):
        ask(health, 0.0, FAILED)
        pauses.append(health.until)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize("later", [None, 0.0, 1.0, 5.0])
def test_a_later_failure_never_shortens_a_pause(later: float | None) -> None:
    assert paused((0.0, 30.0), (1.0, later)).until == 30.0


def test_a_pause_that_the_server_asks_for_is_kept_and_bounded_by_an_hour() -> None:
    assert paused((10.0, 7.5)).until == 17.5
    assert paused((10.0, 1e9)).until == 3610.0
    assert paused((10.0, -5.0)).until == 10.0


def test_a_server_that_asks_for_no_pause_again_and_again_gets_longer_ones() -> None:
    assert paused((0.0, 0.0)).until == 0.0
    assert paused((0.0, 0.0), (0.0, 0.0)).until == 2.0
    assert paused((0.0, 0.0), (0.0, 0.0), (2.0, 0.0)).until == 6.0


def test_a_server_that_takes_no_more_is_not_asked_for_an_hour_at_most() -> None:
    health = Health()
    health.close(0.0, 20.0)
    health.close(0.0, 5.0)
    assert (health.until, health.blocked(19.9, lone=True)) == (20.0, True)
    assert not health.begin()  # nothing has failed, so nothing is to be found out
    health.close(0.0, 1e9)
    assert health.until == 3600.0


def test_one_failure_among_recent_successes_is_no_reason_to_pause() -> None:
    health = Health()
    for now in range(100):
        outcome = FAILED if now % 7 == 6 else None
        ask(health, float(now), outcome)
        assert not health.blocked(float(now), lone=False)


def test_four_failures_in_a_row_are_a_reason_to_pause() -> None:
    health = Health()
    ask(health, 0.0, None)
    for now in (1.0, 2.0, 3.0):
        ask(health, now, FAILED)
        assert not health.blocked(now, lone=False)
    ask(health, 4.0, FAILED)
    assert (health.failures, health.until) == (4, 5.0)


@pytest.mark.parametrize(
    ("verdict", "retry_after", "until"),
    [(DOWN, None, 2.0), (FAILED, 9.0, 10.0), (BROKEN, None, 61.0)],
)
def test_a_server_that_is_down_or_asks_for_it_pauses_despite_recent_successes(
    verdict: Verdict, retry_after: float | None, until: float
) -> None:
    health = Health()
    for _ in range(10):
        ask(health, 1.0, None)
    ask(health, 1.0, verdict, retry_after)
    assert health.until == until
    assert health.begin()  # the next one is a probe


def test_a_success_of_more_than_a_minute_ago_excuses_nothing() -> None:
    health = Health()
    ask(health, 0.0, None)
    ask(health, 61.0, FAILED)
    assert health.until == 62.0


def test_after_the_pause_one_request_at_a_time_probes_the_model() -> None:
    health = paused((0.0, None))
    assert health.blocked(0.99, lone=False)
    assert not health.blocked(1.0, lone=False)
    assert health.begin()
    assert health.blocked(1.0, lone=False)
    health.first_token(1.5, began_at=1.0)
    assert not health.blocked(1.5, lone=False)
    assert not health.begin()


def test_only_a_complete_answer_makes_failures_forgotten() -> None:
    health = paused((0.0, None))
    health.begin()
    health.first_token(1.0, began_at=1.0)
    assert health.failures == 1
    health.complete(9.0, began_at=1.0)
    assert health.failures == 0
    ask(health, 70.0, FAILED)
    assert health.until == 71.0


def test_answers_that_always_break_pause_their_model_for_longer_and_longer() -> None:
    health, pauses = Health(), []
    for _ in range(5):
        now = max(health.until, 0.0)
        broken_off(health, now)
        pauses.append(health.until - now)
    assert pauses == [1, 2, 4, 8, 16]


def test_first_tokens_do_not_excuse_answers_that_break() -> None:
    health = Health()
    ask(health, 0.0, None)
    for now in (1.0, 2.0, 3.0):
        broken_off(health, now)
        assert not health.blocked(now, lone=False)
    broken_off(health, 4.0)
    assert health.until == 5.0


def test_an_answer_that_breaks_after_a_pause_continues_it_despite_older_successes() -> None:
    health = Health()
    ask(health, 0.0, None)
    ask(health, 1.0, DOWN)
    broken_off(health, 2.0)
    assert health.until == 4.0


def test_answers_that_began_before_a_pause_do_not_end_it() -> None:
    health = Health()
    health.begin()
    ask(health, 5.0, DOWN)
    health.first_token(5.1, began_at=4.0)
    health.complete(5.2, began_at=4.0)
    assert (health.failures, health.until) == (1, 6.0)
    assert health.begin()  # the next one is still a probe


def test_a_probe_that_fails_begins_a_longer_pause() -> None:
    health = paused((0.0, None))
    health.begin()
    health.fail(5.0, FAILED, began_at=4.0, probe=True)
    assert (health.until, health.probing) == (7.0, False)


def test_a_lone_model_only_waits_when_its_server_asks_for_it() -> None:
    assert not paused((0.0, None)).blocked(0.0, lone=True)
    assert paused((0.0, 5.0)).blocked(4.9, lone=True)
    assert not paused((0.0, 5.0)).blocked(5.0, lone=True)


def test_a_model_that_does_not_work_at_all_pauses_for_a_minute_at_once() -> None:
    health = Health()
    ask(health, 0.0, BROKEN)
    assert health.until == 60.0


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (EndpointError("slow", "RATE_LIMITED", transient=True), Verdict.FAILED),
        (EndpointError("x", "SERVER_ERROR", transient=True), Verdict.FAILED),
        (
            EndpointError("x", "ENDPOINT_UNREACHABLE", {"connected": False}, transient=True),
            Verdict.DOWN,
        ),
        (EndpointError("x", "ENDPOINT_UNREACHABLE", transient=True), Verdict.FAILED),
        (EndpointError("x", "AUTHENTICATION_FAILED"), Verdict.BROKEN),
        (EndpointError("x", "MODEL_NOT_FOUND"), Verdict.BROKEN),
        (EndpointError("x", "BAD_REQUEST"), Verdict.PASS_ON),
        (EndpointError("x", "GENERATION_CONTEXT_OVERFLOW"), Verdict.PASS_ON),
        (EndpointError("x", "CONTENT_FILTERED"), Verdict.RAISE),
        (ModelNotFoundError("x"), Verdict.BROKEN),
        (GenerationError("x"), Verdict.FAILED),
        (GenerationError("x", "UNSUITABLE"), Verdict.PASS_ON),
        (GenerationError("x", "GENERATION_TIMEOUT"), Verdict.RAISE),
        (ResourceError("x"), Verdict.FAILED),
        (TemplateError("x"), Verdict.PASS_ON),
        (
            ValidationError("x", "UNSUPPORTED", {"param": "response_format"}),
            Verdict.PASS_ON,
        ),
        (StructuredOutputError("x"), Verdict.RAISE),
        (EmptyPromptError("x"), Verdict.RAISE),
        (ValidationError("x"), Verdict.RAISE),
        (StateError("x"), Verdict.RAISE),
        (TaluError("x"), Verdict.RAISE),
        (ZeroDivisionError("x"), Verdict.RAISE),
        (KeyboardInterrupt(), Verdict.RAISE),
    ],
    ids=lambda value: getattr(value, "code", "") or type(value).__name__,
)
def test_what_an_error_means_for_the_request_and_the_model(
    error: BaseException, verdict: Verdict
) -> None:
    assert verdict_on(error) is verdict


def test_attempts_that_were_running_at_a_failure_count_with_it() -> None:
    health = Health()
    for now in (10.0, 10.1, 10.2):
        health.fail(now, FAILED, began_at=9.9)
    assert (health.failures, health.until) == (1, 11.0)
    health.fail(11.5, FAILED, began_at=11.2, probe=health.begin())
    assert (health.failures, health.until) == (2, 13.5)


def test_an_older_attempt_does_not_end_a_probe() -> None:
    health = paused((0.0, None))
    assert health.begin()
    health.fail(2.0, FAILED, began_at=-1.0)
    assert health.probing


def test_one_caller_who_gives_up_says_nothing_and_three_in_a_row_do() -> None:
    health = Health()
    assert [health.cut_off(now, began_at=now - 1) for now in (1.0, 2.0, 3.0)] == [
        False,
        False,
        True,
    ]
    health.first_token(4.0, began_at=3.5)
    assert not health.cut_off(5.0, began_at=4.0)


def test_callers_who_gave_up_beside_each_other_count_once() -> None:
    health = Health()
    assert not any(health.cut_off(1.0 + number / 10, began_at=0.5) for number in range(9))


def test_after_a_pause_that_the_server_asked_for_requests_begin_few_at_a_time() -> None:
    health = Health()
    assert not health.blocked(0.0, lone=True, starting=1000)
    health.close(0.0, 5.0)
    for room in range(1, 65):
        assert not health.blocked(6.0, lone=True, starting=room - 1)
        assert health.blocked(6.0, lone=True, starting=room)
        health.first_token(6.0, began_at=4.0)  # it began before the pause, and says nothing
        health.first_token(6.0, began_at=6.0)
    assert not health.blocked(6.0, lone=True, starting=1000)
