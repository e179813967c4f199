"""Clients whose models cool, are probed, and are hedged."""

import asyncio
import threading
from math import inf
from typing import Any

import pytest
from tests.router.scripted import down, model, tried

from talu import AsyncClient, Client
from talu.backends.scripted import ScriptedModel, Step
from talu.bridge import run_in_background
from talu.exceptions import EndpointError, GenerationError
from talu.router import Fallback, Fastest, First, Limits, ModelSpec, RoundRobin
from talu.types import Done, FinishReason, Timings, Usage

Script = str | list[Step]


def limited(retry_after: float) -> EndpointError:
    return EndpointError("too many", "RATE_LIMITED", retry_after=retry_after, transient=True)


async def slow() -> None:
    """Wait for longer than some callers."""
    await asyncio.sleep(0.05)


async def hang() -> None:
    """Wait until the attempt is cancelled."""
    await asyncio.get_running_loop().create_future()


def test_a_model_that_failed_is_not_asked_and_the_note_says_why(faces: Any) -> None:
    first = model("a", [down()])
    client = faces.client_of(first, model("b", "one", "two"), policy=Fallback())
    faces.run(client.ask("hi"))
    answer = faces.run(client.ask("hi"))
    assert (answer.text, tried(answer)) == ("two", [("b", None)])
    assert "'b' answered instead of 'a': it is not asked for" in answer.notes[0]
    assert "s (it is down)" in answer.notes[0]
    assert len(first.requests) == 1


def test_a_complete_answer_makes_failures_forgotten_and_one_that_is_stopped_does_not(
    faces: Any,
) -> None:
    stopped = Done(FinishReason.CANCELLED, Usage(), Timings(), "a")
    scripted = model("a", [down()], ["cut short", stopped], "whole")
    client = faces.client_of(scripted, model("b", "x"), policy=Fallback())
    faces.run(client.ask("hi"))
    client.router._routing._targets["a"]._health.until = 0.0  # the pause is over
    assert faces.run(client.ask("hi")) == "cut short"
    assert client.router.status().targets[0].failures_in_a_row == 1
    assert faces.run(client.ask("hi")) == "whole"
    assert client.router.status().targets[0].failures_in_a_row == 0


def test_a_request_waits_as_long_as_the_server_asks_for_and_asks_again(faces: Any) -> None:
    client = faces.client_of(model("a", [limited(0.02)], "now"), policy=Fallback())
    answer = faces.run(client.ask("hi"))
    assert (answer.text, tried(answer)) == ("now", [("a", "RATE_LIMITED"), ("a", None)])
    assert answer.attempts[1].started_ms >= 20
    assert answer.notes == ("the request was repeated once: RATE_LIMITED",)


def test_a_request_waits_for_the_first_of_several_models_that_cool(faces: Any) -> None:
    client = faces.client_of(
        model("a", [limited(60)]), model("b", [limited(0.02)], "now"), policy=Fallback()
    )
    answer = faces.run(client.ask("hi", timeout=20))
    assert tried(answer) == [("a", "RATE_LIMITED"), ("b", "RATE_LIMITED"), ("b", None)]


def test_a_model_that_failed_is_asked_once_more_when_all_others_pause(faces: Any) -> None:
    first = model("a", "one", [down()], "two", [down()], [down()], "never")
    client = faces.client_of(first, model("b"), policy=Fallback(wait=0.05))
    client.router._routing._targets["b"]._health.until = 1e9
    faces.run(client.ask("hi"))
    assert tried(faces.run(client.ask("hi"))) == [("a", "SERVER_ERROR"), ("a", None)]
    with pytest.raises(EndpointError, match="'a': it is down; 'b' is cooling down") as caught:
        faces.run(client.ask("hi"))
    assert tried(caught.value) == [("a", "SERVER_ERROR")] * 2


def test_an_error_names_all_pauses_when_waiting_would_take_too_long(faces: Any) -> None:
    client = faces.client_of(
        model("a", [limited(70)]), model("b", [limited(80)]), policy=Fallback()
    )
    with pytest.raises(
        EndpointError, match=r"'a' and 'b': too many; 'a' is cooling down for (70|69)"
    ) as one:
        faces.run(client.ask("hi", timeout=20))
    assert one.value.code == "MODELS_COOLING"
    pauses = r"'a' is cooling down for (70|69|68) .*'b' is cooling down for"
    with pytest.raises(EndpointError, match=pauses) as two:
        faces.run(client.ask("hi"))  # without a limit: longer than 30 seconds
    assert two.value.transient
    assert 60 < (two.value.retry_after or 0) <= 70
    assert two.value.attempts == ()


def test_a_model_that_needs_repair_is_told_apart_from_one_that_pauses(faces: Any) -> None:
    refused = EndpointError("wrong key", "AUTHENTICATION_FAILED", status=401)
    client = faces.client_of(model("a", [refused]), model("b", [limited(70)]), policy=Fallback())
    for _ in range(2):
        with pytest.raises(EndpointError) as caught:
            faces.run(client.ask("hi"))
    message = str(caught.value)
    assert "'a' does not work until somebody repairs it (wrong key)" in message
    assert "'b' is cooling down for" in message
    assert caught.value.code == "MODELS_COOLING"
    assert (caught.value.retry_after or 0) > 60  # of the model that pauses


def test_a_lone_model_raises_its_own_error_when_the_server_asks_for_too_long_a_pause(
    faces: Any,
) -> None:
    client = faces.client_of(model("a", [limited(70)]), policy=Fallback())
    with pytest.raises(EndpointError, match=r"^too many$"):
        faces.run(client.ask("hi"))
    with pytest.raises(
        EndpointError,
        match=r"no model can be asked within 30 seconds: 'a' is cooling down for .* \(too many\)",
    ):
        faces.run(client.ask("hi"))


def test_the_time_limit_of_the_caller_ends_the_request(faces: Any) -> None:
    client = faces.client_of(model("a", [hang]), policy=Fallback())
    with pytest.raises(GenerationError) as caught:
        faces.run(client.ask("hi", timeout=0.3))
    assert caught.value.code == "GENERATION_TIMEOUT"
    assert tried(caught.value) == [("a", "GENERATION_TIMEOUT")]


def test_another_model_is_asked_when_half_of_the_callers_time_is_over(faces: Any) -> None:
    client = faces.client_of(model("a", [hang]), model("b", "in time"), policy=Fallback())
    answer = faces.run(client.ask("hi", timeout=2))
    assert (answer.text, tried(answer)) == ("in time", [("a", "SLOWER"), ("b", None)])
    assert 900 < answer.attempts[1].started_ms < 2000  # counted from a little later than the limit
    assert client.router.status().hedged == 1


def test_the_first_model_may_still_answer_after_half_of_the_callers_time(faces: Any) -> None:
    other_is_asked = asyncio.Event()

    def second() -> Any:
        other_is_asked.set()
        return hang()

    client = faces.client_of(
        model("a", [other_is_asked.wait, "slow"]), model("b", [second]), policy=Fallback()
    )
    answer = faces.run(client.ask("hi", timeout=1))
    assert (answer.text, tried(answer)) == ("slow", [("a", None), ("b", "SLOWER")])


def test_a_policy_without_fallback_asks_no_other_model_in_the_callers_time(faces: Any) -> None:
    other = model("b", "never")
    client = faces.client_of(model("a", [slow, "late"]), other, policy=First())
    with pytest.raises(GenerationError):
        faces.run(client.ask("hi", timeout=0.01))
    assert other.requests == []


@pytest.mark.parametrize("how", ["the policy", "the model itself"])
def test_a_model_that_hangs_pauses_although_its_callers_have_little_time(
    faces: Any, how: str
) -> None:
    slow_answer: list[Step] = [lambda: asyncio.sleep(0.3), "late"]
    models = model("a", *[slow_answer] * 3), model("b", *["b"] * 4)
    client = faces.client_of(*models, policy=Fallback())
    for number in range(3):
        assert client.router.status().targets[0].cooling_s == 0
        if how == "the policy":
            answer = faces.run(client.ask("hi", timeout=0.1))
            assert tried(answer) == [("a", "SLOWER"), ("b", None)], number
        else:
            with pytest.raises(GenerationError):
                faces.run(client.ask("hi", timeout=0.1, model="a"))
    assert client.router.status().targets[0].cooling_s > 0
    assert tried(faces.run(client.ask("hi", timeout=5))) == [("b", None)]


def test_a_model_that_hangs_until_the_time_of_the_caller_is_over_pauses(
    faces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late() -> None:
        await asyncio.sleep(0.1)

    monkeypatch.setattr("talu.router.health.STALL_S", 0.05)
    client = faces.client_of(model("a", [late, "x"]), model("b", "yes"), policy=Fallback())
    with pytest.raises(GenerationError) as caught:
        faces.run(client.ask("hi", timeout=0.09, model="a"))
    assert caught.value.code == "GENERATION_TIMEOUT"
    assert faces.run(client.ask("hi")) == "yes"


def hedged(client: Any) -> Any:
    """The client's hedging, which knows twenty fast answers and has saved up some requests."""
    hedging = client.router._routing._hedging
    for _ in range(20):
        hedging.observe(0.001)
        hedging.request()
    return client


def test_a_slow_model_is_hedged_by_the_next_one_and_cancelled(faces: Any) -> None:
    slow = model("a", [hang, "never"])
    client = hedged(faces.client_of(slow, model("b", "fast"), policy=Fallback(hedge=True)))
    answer = faces.run(client.ask("hi"))
    assert (answer.text, tried(answer)) == ("fast", [("a", "SLOWER"), ("b", None)])
    assert "'b' answered instead of 'a': another model was faster" in answer.notes
    for _ in range(5):  # the cancelled request ends
        if faces.name == "async":
            faces.run(asyncio.sleep(0))
        else:
            run_in_background(lambda: asyncio.sleep(0))
    status = client.router.status()
    assert slow.active == 0
    assert (status.hedged, [target.running for target in status.targets]) == (1, [0, 0])
    assert [target.failures for target in status.targets] == [0, 0]  # being slow is no failure


def test_the_fastest_model_is_no_longer_the_one_that_hangs_when_another_one_overtakes_it(
    faces: Any,
) -> None:
    hanging, other = model("a", [hang, "never"], "back"), model("b", "one", "two")
    client = hedged(faces.client_of(hanging, other, policy=Fastest(hedge=True)))
    targets = client.router._routing._targets
    targets["b"]._average.add(1.0, targets["b"]._clock())
    targets["a"]._average.add(0.1, targets["a"]._clock())
    for _ in range(30):
        client.router._routing._hedging.observe(0.05)
    first = faces.run(client.ask("hi"))
    assert tried(first) == [("a", "SLOWER"), ("b", None)]
    state = client.router.status().targets[0]
    assert state.first_token_ms is not None
    assert state.first_token_ms > 5.0  # a fifth of the new time counts
    assert tried(faces.run(client.ask("hi"))) == [("b", None)]


def test_the_wait_for_its_turn_does_not_make_a_model_slow() -> None:
    async def main() -> None:
        going = asyncio.Event()
        scripted = model("a", ["x", going.wait], "y")
        specs = [ModelSpec("a", scripted, limits=Limits(concurrency=1)), "b"]
        async with AsyncClient(specs, policy=Fallback(hedge=True)) as client:
            client.router._routing._targets["b"]._health.until = inf  # it cools
            hedging = client.router._routing._hedging
            asked = [asyncio.create_task(client.ask("hi")) for _ in range(2)]
            while client.router.status().targets[0].waiting == 0:
                await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.5, going.set)
            assert [answer.text for answer in await asyncio.gather(*asked)] == ["x", "y"]
            slowest = hedging._times.percentile(1.0)
            assert slowest is not None
            assert slowest < 0.4

    asyncio.run(main())


def test_an_error_that_ends_the_request_lists_attempts_that_ended_after_it(awaited: Any) -> None:
    begun, failing = asyncio.Event(), asyncio.Event()

    async def tick() -> None:
        await asyncio.sleep(0)

    refused = GenerationError("filtered", "CONTENT_FILTERED")
    client = hedged(
        awaited.client_of(
            model("a", [begun.wait, failing.set, refused]),
            model("b", [begun.set, failing.wait, *[tick] * 9, limited(70)]),
            policy=Fallback(hedge=True),
        )
    )
    with pytest.raises(GenerationError, match="filtered") as caught:
        awaited.run(client.ask("hi"))
    assert tried(caught.value) == [("a", "CONTENT_FILTERED"), ("b", "RATE_LIMITED")]


def test_a_request_that_asks_again_at_half_its_time_is_not_hedged_as_well(awaited: Any) -> None:
    async def a_while() -> None:
        await asyncio.sleep(0.2)

    third = model("c", "never")
    client = hedged(
        awaited.client_of(
            model("a", [hang]), model("b", [a_while, "b"]), third, policy=Fallback(hedge=True)
        )
    )
    for _ in range(20):
        client.router._routing._hedging.observe(1.05)
    answer = awaited.run(client.ask("hi", timeout=2))
    assert (tried(answer), third.requests) == ([("a", "SLOWER"), ("b", None)], [])


def test_without_hedge_nothing_is_asked_twice(faces: Any) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.01)

    other = model("b", "never")
    client = hedged(faces.client_of(model("a", [slow, "x"]), other, policy=Fallback()))
    assert faces.run(client.ask("hi")).text == "x"
    assert other.requests == []


def test_without_a_budget_a_slow_model_is_waited_for(faces: Any) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.01)

    other = model("b", "never")
    client = faces.client_of(model("a", [slow, "x"]), other, policy=Fallback(hedge=True))
    hedging = client.router._routing._hedging
    for _ in range(20):
        hedging.observe(0.001)
    assert faces.run(client.ask("hi")).text == "x"
    assert other.requests == []


def test_a_slow_model_is_waited_for_without_a_spin_when_no_other_one_is_free(faces: Any) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.05)

    first, second = model("a", [slow, "x"]), model("b", [down()])
    client = hedged(faces.client_of(first, second, policy=Fallback(hedge=True)))
    target = client.router._routing._targets["b"]
    target._health.until = float("inf")  # it cools
    turns = 0
    begin = target.begin

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal turns
        turns += 1
        return begin(*arguments, **named)

    target.begin = counted
    assert faces.run(client.ask("hi")).text == "x"
    assert turns == 1
    assert client.router.status().hedged == 0


def test_a_hedge_that_fails_leaves_the_first_model_its_time(faces: Any) -> None:
    failed = threading.Event()

    async def until_the_hedge_failed() -> None:
        while not failed.is_set():
            await asyncio.sleep(0)

    def fail() -> None:
        failed.set()
        raise down()

    client = hedged(
        faces.client_of(
            model("a", [until_the_hedge_failed, "slow"]),
            model("b", [fail]),
            policy=Fallback(hedge=True),
        )
    )
    answer = faces.run(client.ask("hi"))
    assert (answer.text, tried(answer)) == ("slow", [("a", None), ("b", "SERVER_ERROR")])


def refusing() -> EndpointError:
    details = {"connected": False}
    return EndpointError("no connection", "ENDPOINT_UNREACHABLE", details, transient=True)


class Narrow(ScriptedModel):
    """A model without the setting top_k."""

    settings = ("max_tokens",)


@pytest.mark.parametrize(
    ("second", "error", "hedged_requests"),
    [
        (Narrow("never", model="b"), "UNSUITABLE", 1),
        (model("b", [refusing()]), "ENDPOINT_UNREACHABLE", 1),
        (model("b", [down()]), "SERVER_ERROR", 2),
    ],
)
def test_a_hedge_that_fails_is_replaced_and_pays_only_for_what_was_sent(
    awaited: Any, second: ScriptedModel, error: str, hedged_requests: int
) -> None:
    models = [model("a", [hang, "never"]), second, model("c", "fast")]
    client = hedged(awaited.client_of(*models, policy=Fallback(hedge=True)))
    answer = awaited.run(client.ask("hi", top_k=3))
    assert (answer.text, tried(answer)) == ("fast", [("a", "SLOWER"), ("b", error), ("c", None)])
    assert client.router.status().hedged == hedged_requests
    assert client.router._routing._hedging._saved == 21 - 10 * hedged_requests


def test_only_one_of_many_requests_probes_a_model_that_was_down() -> None:
    async def main() -> None:
        release = asyncio.Event()
        first = model("a", [down()], [release.wait, "again"], *["later"] * 9)
        second = model("b", *["other"] * 20)
        specs = [ModelSpec("a", first), ModelSpec("b", second)]
        async with AsyncClient(specs, policy=Fallback()) as client:
            await client.ask("hi")
            target = client.router._routing._targets["a"]
            target._health.until = 0.0  # the pause is over
            probe = asyncio.create_task(client.ask("hi"))
            while len(first.requests) < 2:
                await asyncio.sleep(0)
            answers = await asyncio.gather(*(client.ask("hi") for _ in range(5)))
            assert [answer.model for answer in answers] == ["b"] * 5
            release.set()
            assert (await probe).text == "again"
            assert (await client.ask("hi")).model == "a"

    asyncio.run(main())


def test_round_robin_serves_many_threads_evenly() -> None:
    models = [model(name, *["x"] * 40) for name in ("a", "b", "c", "d")]
    with Client([ModelSpec(each.model, each) for each in models], policy=RoundRobin()) as client:
        answers = client.ask(["hi"] * 40)
    assert [answer.text for answer in answers] == ["x"] * 40
    assert [len(each.requests) for each in models] == [10] * 4


def test_a_request_waits_for_a_busy_model_while_another_one_cools_for_long() -> None:
    async def main() -> None:
        go = asyncio.Event()
        broken = EndpointError("wrong key", "AUTHENTICATION_FAILED")
        busy = ModelSpec("a", model("a", [go.wait, "a"], "second"), limits=Limits(concurrency=1))
        models = [ModelSpec("b", model("b", [broken])), busy]
        async with AsyncClient(models, policy=Fallback()) as client:
            first = asyncio.create_task(client.ask("x"))
            while not busy.backend.requests:  # type: ignore[union-attr]
                await asyncio.sleep(0)
            second = asyncio.create_task(client.ask("y", timeout=20))
            while not any(target.waiting for target in client.router.status().targets):
                await asyncio.sleep(0)
            go.set()
            assert [await first, await second] == ["a", "second"]

    asyncio.run(main())


def test_a_failing_hedge_leaves_the_first_attempt_its_chance() -> None:
    async def main() -> None:
        go = asyncio.Event()
        filtered = EndpointError("refused", "CONTENT_FILTERED")

        async def refuse() -> None:
            go.set()

        slow = model("a", *(["x"] * 30), [go.wait, "late"])
        models = [ModelSpec("a", slow), ModelSpec("b", model("b", [refuse, filtered]))]
        async with AsyncClient(models, policy=Fallback(hedge=True)) as client:
            for _ in range(30):
                await client.ask("warm up")
            answer = await client.ask("x")
        assert (answer.text, answer.model) == ("late", "a")
        assert [attempt.error for attempt in answer.attempts] == [None, "CONTENT_FILTERED"]

    asyncio.run(main())


def test_closing_a_client_ends_the_wait_of_its_requests() -> None:
    async def main() -> None:
        client = AsyncClient(ModelSpec("a", model("a", [limited(20)])), policy=Fallback())
        waiting = asyncio.create_task(client.ask("x"))
        while not any(target.waiting for target in client.router.status().targets):
            await asyncio.sleep(0)
        await client.close()
        answer = await asyncio.wait_for(waiting, 10)
        assert answer.finish_reason == "cancelled"

    asyncio.run(main())


def test_a_request_whose_models_have_all_failed_waits_for_the_first_probe(faces: Any) -> None:
    failed = [EndpointError("gone", "ENDPOINT_UNREACHABLE", {"connected": False}, transient=True)]
    client = faces.client_of(model("a", failed, "back"), model("b", failed), policy=Fallback())
    answer = faces.run(client.ask("hi", timeout=60))
    assert [each.model for each in answer.attempts] == ["a", "b", "a"]
    assert (answer.text, answer.attempts[2].started_ms >= 1000) == ("back", True)


def test_a_request_that_cannot_wait_for_a_probe_says_at_once_why_its_models_failed(
    faces: Any,
) -> None:
    models = model("a", [down()]), model("b", [down()])
    client = faces.client_of(*models, policy=Fallback())
    with pytest.raises(EndpointError, match="no model answered: 'a' and 'b': it is down"):
        faces.run(client.ask("hi", timeout=0.9))
