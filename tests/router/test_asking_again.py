"""Models that are asked again: after their pauses, and when a faster answer has broken."""

import asyncio
from typing import Any

import pytest
from tests.router.scripted import broken, down, model, tried

from talu.backends.scripted import Step
from talu.exceptions import EndpointError, GenerationError
from talu.router import Fallback, Limits, ModelSpec
from talu.router.dispatch import MAX_ASKED


async def hang() -> None:
    """Wait until the attempt is cancelled, whatever time the caller has."""
    await asyncio.get_running_loop().create_future()


@pytest.fixture
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talu.router.health.FIRST_PAUSE_S", 0.02)


@pytest.mark.usefixtures("_short_pauses")
@pytest.mark.parametrize("timeout", [60, None])
def test_models_that_are_down_are_probed_until_one_of_them_works(
    faces: Any, timeout: float | None
) -> None:
    failures: list[list[Step]] = [[down()] for _ in range(4)]
    client = faces.client_of(
        model("a", *failures, "back"), model("b", *failures, "back"), policy=Fallback()
    )
    answer = faces.run(client.ask("hi", timeout=timeout))
    assert answer.text == "back"
    assert len(answer.attempts) == 9
    assert answer.attempts[-1].started_ms >= 20 + 40 + 80 + 160


@pytest.mark.usefixtures("_short_pauses")
@pytest.mark.parametrize("given", ["timeout", "wait"])
def test_the_error_of_models_that_stay_down_names_all_causes_and_pauses(
    faces: Any, given: str
) -> None:
    failures: list[list[Step]] = [[down()] for _ in range(20)]
    policy = Fallback(wait=0.5 if given == "wait" else 60)
    client = faces.client_of(model("a", *failures), model("b", *failures), policy=policy)
    with pytest.raises(EndpointError) as caught:
        faces.run(client.ask("hi", timeout=0.5 if given == "timeout" else None))
    error = caught.value
    assert str(error).startswith(
        "no model answered: 'a' and 'b': it is down; none can be asked again within 0.5 seconds: "
    )
    assert "'a' is cooling down for 0." in str(error)
    assert "'b' is cooling down for 0." in str(error)
    assert (error.code, error.transient) == ("SERVER_ERROR", True)
    assert set(error.details["waits"]) == {"a", "b"}
    assert error.retry_after == min(error.details["waits"].values())
    assert len(error.attempts) > 4
    assert {attempt.model for attempt in error.attempts} == {"a", "b"}


def test_a_model_is_asked_so_many_times_at_most(
    faces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talu.router.health.FIRST_PAUSE_S", 0.0)
    failures: list[list[Step]] = [[down()] for _ in range(MAX_ASKED + 1)]
    models = model("a", *failures), model("b", *failures)
    monkeypatch.setattr("talu.router.targets.Target.pauses", True)
    client = faces.client_of(*models, policy=Fallback())
    with pytest.raises(EndpointError, match="it is down"):
        faces.run(client.ask("hi", timeout=60))
    assert [len(each.requests) for each in models] == [MAX_ASKED] * 2


@pytest.mark.parametrize("why", ["hedge", "half of the time"])
def test_a_model_that_was_only_slower_is_asked_again_when_the_faster_answer_breaks(
    faces: Any, why: str
) -> None:
    slow = model("a", [hang], "good")
    hasty = model("b", ["half ", broken()], "never")
    client = faces.client_of(slow, hasty, policy=Fallback(hedge=why == "hedge"))
    hedging = client.router._routing._hedging
    for _ in range(20):
        hedging.observe(0.001)
        hedging.request()
    answer = faces.run(client.ask("hi", timeout=60 if why == "hedge" else 1))
    assert answer.text == "good"
    assert tried(answer) == [("a", "SLOWER"), ("b", "STREAM_BROKEN"), ("a", None)]
    assert [len(slow.requests), len(hasty.requests)] == [2, 1]
    assert answer.notes == (
        "the request was repeated once: the answer of a model that was faster broke off",
    )


def test_a_model_that_becomes_free_after_half_of_the_callers_time_is_asked_then(
    awaited: Any,
) -> None:
    busy = asyncio.Event()
    other = model("b", [busy.wait, "first"], "in time")
    specs = [
        ModelSpec("a", model("a", [hang])),
        ModelSpec("b", other, limits=Limits(concurrency=1)),
    ]
    client = awaited.face.client_class(specs, policy=Fallback())

    async def main() -> Any:
        first = asyncio.ensure_future(client.ask("x", model="b"))
        while not other.requests:
            await asyncio.sleep(0)
        second = asyncio.ensure_future(client.ask("y", timeout=2))
        while client.router.status().targets[1].waiting == 0:  # after half of its time
            await asyncio.sleep(0.01)
        busy.set()
        return await second, await first

    answer, _ = awaited.run(main())
    assert (answer.text, tried(answer)) == ("in time", [("a", "SLOWER"), ("b", None)])
    assert answer.attempts[1].started_ms >= 1000
    assert [target.waiting for target in client.router.status().targets] == [0, 0]


def test_models_that_ignore_the_time_limit_are_ended_and_all_of_them_are_attempts(
    faces: Any,
) -> None:
    client = faces.client_of(model("a", [hang]), model("b", [hang]), policy=Fallback())
    with pytest.raises(GenerationError, match=r"within timeout=0\.4 seconds") as caught:
        faces.run(client.ask("hi", timeout=0.4))
    assert tried(caught.value) == [("a", "GENERATION_TIMEOUT"), ("b", "GENERATION_TIMEOUT")]
    assert [target.failures for target in client.router.status().targets] == [0, 0]
