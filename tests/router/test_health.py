"""When a model that failed is asked again, with times as values."""

import pytest

from talu.exceptions import (
    EmptyPromptError,
    EndpointError,
    GenerationError,
    ModelNotFoundError,
    ResourceError,
    StateError,
    TaluError,
    TemplateError,
    ValidationError,
)
from talu.router.health import Health, Verdict, verdict_on


def cooled(*failures: tuple[float, float | None]) -> Health:
    """The state after failures at these times, with what the server asked for."""
    health = Health()
    for now, retry_after in failures:
        health.fail(now, Verdict.COOL, retry_after)
    return health


def test_the_pause_doubles_with_each_failure_up_to_a_minute() -> None:
    health, pauses = Health(), []
    for _ in range(9):
        health.fail(0.0, Verdict.COOL)
        pauses.append(health.until)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize("later", [None, 0.0, 1.0, 5.0])
def test_a_later_failure_never_shortens_a_pause(later: float | None) -> None:
    assert cooled((0.0, 30.0), (1.0, later)).until == 30.0


def test_a_pause_that_the_server_asks_for_is_kept_and_bounded_by_an_hour() -> None:
    assert cooled((10.0, 7.5)).until == 17.5
    assert cooled((10.0, 1e9)).until == 3610.0
    assert cooled((10.0, -5.0)).until == 10.0


def test_a_server_that_asks_for_no_pause_again_and_again_gets_longer_ones() -> None:
    assert cooled((0.0, 0.0)).until == 0.0
    assert cooled((0.0, 0.0), (0.0, 0.0)).until == 2.0
    assert cooled((0.0, 0.0), (0.0, 0.0), (2.0, 0.0)).until == 6.0


def test_after_the_pause_one_request_at_a_time_probes_the_model() -> None:
    health = cooled((0.0, None))
    assert health.blocked(0.99, lone=False)
    assert not health.blocked(1.0, lone=False)
    assert health.begin()
    assert health.blocked(1.0, lone=False)
    health.succeed()
    assert not health.blocked(1.0, lone=False)
    assert not health.begin()
    assert health.failures == 0


def test_a_probe_that_fails_begins_a_longer_pause() -> None:
    health = cooled((0.0, None))
    health.begin()
    health.fail(5.0, Verdict.COOL)
    assert (health.until, health.probing) == (7.0, False)


def test_a_lone_model_only_waits_when_its_server_asks_for_it() -> None:
    assert not cooled((0.0, None)).blocked(0.0, lone=True)
    assert cooled((0.0, 5.0)).blocked(4.9, lone=True)
    assert not cooled((0.0, 5.0)).blocked(5.0, lone=True)


def test_a_model_that_does_not_work_at_all_pauses_for_a_minute_at_once() -> None:
    health = Health()
    health.fail(0.0, Verdict.BROKEN)
    assert health.until == 60.0


@pytest.mark.parametrize("verdict", [Verdict.PASS_ON, Verdict.RAISE])
def test_an_error_of_the_request_does_not_pause_the_model(verdict: Verdict) -> None:
    health = Health()
    health.fail(0.0, verdict, 30.0)
    assert health == Health()


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (EndpointError("slow", "RATE_LIMITED", transient=True), Verdict.COOL),
        (EndpointError("x", "SERVER_ERROR", transient=True), Verdict.COOL),
        (EndpointError("x", "AUTHENTICATION_FAILED"), Verdict.BROKEN),
        (EndpointError("x", "MODEL_NOT_FOUND"), Verdict.BROKEN),
        (EndpointError("x", "BAD_REQUEST"), Verdict.PASS_ON),
        (EndpointError("x", "GENERATION_CONTEXT_OVERFLOW"), Verdict.PASS_ON),
        (EndpointError("x", "CONTENT_FILTERED"), Verdict.RAISE),
        (ModelNotFoundError("x"), Verdict.BROKEN),
        (GenerationError("x"), Verdict.COOL),
        (GenerationError("x", "GENERATION_TIMEOUT"), Verdict.RAISE),
        (ResourceError("x"), Verdict.COOL),
        (TemplateError("x"), Verdict.PASS_ON),
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
        health.fail(now, Verdict.COOL, began_at=9.9, probe=False)
    assert (health.failures, health.until) == (1, 11.0)
    health.fail(11.5, Verdict.COOL, began_at=11.2)
    assert (health.failures, health.until) == (2, 13.5)


def test_an_older_attempt_does_not_end_a_probe() -> None:
    health = Health()
    health.fail(0.0, Verdict.COOL)
    assert health.begin()
    health.fail(2.0, Verdict.COOL, began_at=-1.0, probe=False)
    assert health.probing
