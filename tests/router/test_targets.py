"""The state of one model: attempts, probes, times, the queue; with a clock that the test sets."""

import asyncio
import gc
import os
from typing import Any

import pytest

from talu.exceptions import EndpointError, GenerationError, ResourceError
from talu.router import Limits
from talu.router.health import Verdict
from talu.router.queue import Ticket
from talu.router.targets import Lease, Target
from talu.router.waits import Wait

DOWN = EndpointError("it is down", "SERVER_ERROR", transient=True)


class Clock:
    """A clock that stands still until the test sets it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def target(clock: Clock) -> Target:
    return Target("a", clock=clock)


def begun(target: Target, *, lone: bool = False) -> Lease:
    lease = target.begin(Ticket(), lone=lone)
    assert isinstance(lease, Lease)
    return lease


def waits(target: Target) -> float:
    wait = target.begin(Ticket(), lone=False)
    assert isinstance(wait, Wait)
    return wait.seconds


def test_an_attempt_counts_as_running_until_it_is_released_or_dropped(target: Target) -> None:
    first, second = begun(target), begun(target)
    assert target.status().running == 2
    first.release()
    first.release()
    assert target.status().running == 1
    del second
    gc.collect()
    assert (target.status().running, target.status().requests) == (0, 2)


def test_a_failure_says_when_to_try_again(target: Target, clock: Clock) -> None:
    begun(target).failed(DOWN)
    assert waits(target) == 1.0
    clock.now += 0.75
    assert waits(target) == 0.25
    status = target.status()
    assert (status.cooling_s, status.last_error, status.failures) == (0.25, "it is down", 1)


def test_one_request_probes_and_the_others_wait_for_its_result(
    target: Target, clock: Clock
) -> None:
    begun(target).failed(DOWN)
    clock.now += 1
    probe = begun(target)
    assert target.status().probing
    assert waits(target) == float("inf")
    probe.first_token(5.0)
    begun(target)
    begun(target)
    assert not target.status().probing


@pytest.mark.parametrize("end", ["released", "dropped"])
def test_a_probe_that_was_cancelled_lets_the_next_request_probe(
    target: Target, clock: Clock, end: str
) -> None:
    begun(target).failed(DOWN)
    clock.now += 1
    probe: Any = begun(target)
    if end == "released":
        probe.release()
    del probe
    gc.collect()
    assert isinstance(target.begin(Ticket(), lone=False), Lease)


@pytest.mark.parametrize(
    ("asked", "seconds", "answering", "failures"),
    [(True, 5.0, False, 1), (True, 4.9, False, 0), (True, 9.0, True, 0), (False, 9.0, False, 0)],
    ids=["a stall", "a short time limit", "after the first token", "while it was opened"],
)
def test_a_caller_whose_time_runs_out_at_a_model_that_stalls_has_seen_a_failure(
    target: Target, clock: Clock, asked: bool, seconds: float, answering: bool, failures: int
) -> None:
    lease = begun(target)
    if asked:
        lease.asked()
    if answering:
        lease.first_token(1.0)
    clock.now += seconds
    assert lease.failed(GenerationError("late", "GENERATION_TIMEOUT")) is Verdict.RAISE
    assert (target.status().failures, target.status().cooling_s) == (failures, failures)


def test_a_lone_model_is_asked_while_it_would_cool(target: Target) -> None:
    begun(target).failed(DOWN)
    assert waits(target) == 1.0
    begun(target, lone=True)


def test_the_average_forgets_times_that_are_older_than_five_minutes(
    target: Target, clock: Clock
) -> None:
    begun(target).first_token(10.0)
    begun(target).first_token(20.0)
    assert target.status().first_token_ms == pytest.approx(12.0)
    assert target.status().first_token_p95_ms == 20.0
    clock.now += 301
    assert target.status().first_token_ms is None
    begun(target).first_token(30.0)
    assert target.status().first_token_ms == 30.0


def test_an_attempt_that_was_overtaken_never_lowers_the_average_of_its_model(
    target: Target,
) -> None:
    begun(target).overtaken(10.0)
    assert target.status().first_token_ms == 10.0
    begun(target).overtaken(5.0)
    assert target.status().first_token_ms == 10.0
    begun(target).overtaken(20.0)
    assert target.status().first_token_ms == pytest.approx(12.0)


def test_the_end_of_an_attempt_wakes_those_who_wait_in_every_loop(target: Target) -> None:
    lease = begun(target)

    async def wait() -> None:
        changed = target.changed(Ticket())
        asyncio.get_running_loop().call_soon(lease.release)
        await asyncio.wait_for(changed, 30)

    asyncio.run(wait())


def test_a_request_that_leaves_the_queue_wakes_the_next_one() -> None:
    target = Target("a", Limits(concurrency=1))

    async def wait() -> None:
        first, second = Ticket(), Ticket()
        target.enter(first)
        target.enter(second)
        changed = target.changed(second)
        target.leave(first)
        await asyncio.wait_for(changed, 30)

    asyncio.run(wait())


def test_a_waiter_of_a_closed_loop_does_not_disturb_the_others(target: Target) -> None:
    async def register() -> None:
        target.changed(Ticket())

    asyncio.run(register())
    begun(target).release()


@pytest.mark.parametrize("limits", [Limits(concurrency=1), None])
def test_requests_of_a_closed_loop_hold_neither_a_slot_nor_a_probe_nor_a_place(
    clock: Clock, limits: Limits | None
) -> None:
    target = Target("a", limits, clock)
    begun(target).failed(DOWN)
    clock.now += 1
    loop = asyncio.new_event_loop()

    async def begin() -> Lease:
        lease = begun(target)
        target.enter(Ticket())
        return lease

    lease = loop.run_until_complete(begin())
    target.enter(first := Ticket())
    assert isinstance(target.begin(first, lone=False), Wait)
    loop.close()
    own = target.begin(first, lone=False)
    assert isinstance(own, Lease)
    target.leave(first)
    assert (target.status().running, target.status().waiting) == (1, 0)
    lease.release()  # again: it does not count twice
    assert target.status().running == 1


def test_the_queue_is_bounded(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talu.router.targets.MAX_WAITING", 2)
    first = Ticket()
    target.enter(first)
    target.enter(Ticket())
    with pytest.raises(ResourceError, match="2 requests wait for model 'a'"):
        target.enter(Ticket())
    target.leave(first)
    target.enter(Ticket())
    assert target.status().waiting == 2


def test_the_requests_of_the_parent_do_not_count_in_a_forked_child(clock: Clock) -> None:
    target = Target("a", Limits(concurrency=1), clock)
    lease: Any = begun(target)
    target.enter(Ticket())
    child = os.fork()
    if child == 0:
        del lease
        fresh = target.status()
        own = target.begin(Ticket(), lone=False)
        os._exit(0 if isinstance(own, Lease) and (fresh.running, fresh.waiting) == (0, 0) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (target.status().running, target.status().waiting) == (1, 1)
    lease.release()
