"""Limits of a model: when the next request may begin, and requests that wait for it."""

import asyncio
import threading
from typing import Any

import pytest

from talu import AsyncClient, Client, ModelSpec
from talu.backends.scripted import ScriptedModel, Step
from talu.exceptions import EndpointError, GenerationError, ResourceError, ValidationError
from talu.router import Fallback, LeastBusy, Limits
from talu.router.dispatch import CLOSING
from talu.router.limits import Gate
from talu.router.queue import Ticket
from talu.router.targets import Lease, Target, Wait
from talu.types import Done, FinishReason, StopFlag, Timings, Usage

inf = float("inf")


def gate(**limits: int) -> Gate:
    return Gate(Limits(**limits))


def test_only_so_many_requests_run_at_the_same_time() -> None:
    made = gate(concurrency=2)
    made.begin(0.0, 0)
    assert made.delay(0.0, 0) == 0
    made.begin(0.0, 0)
    assert made.delay(0.0, 0) == inf
    made.end()
    assert made.delay(0.0, 0) == 0


def test_a_request_waits_until_an_earlier_one_is_a_minute_old() -> None:
    made = gate(requests_per_minute=2)
    for time in (0.0, 10.0):
        assert made.delay(time, 0) == 0
        made.begin(time, 0)
        made.end()
    assert made.delay(20.0, 0) == pytest.approx(40.1)
    assert made.delay(60.0, 0) == pytest.approx(0.1)
    assert made.delay(60.2, 0) == 0
    made.begin(60.2, 0)
    assert made.delay(60.2, 0) == pytest.approx(9.9)


def test_within_any_minute_no_more_requests_begin_than_the_limit() -> None:
    made, begun, now = gate(requests_per_minute=7), [], 0.0
    while len(begun) < 100:
        if made.delay(now, 0) == 0:
            made.begin(now, 0)
            begun.append(now)
        now += 0.03
    assert all(later - earlier >= 60 for earlier, later in zip(begun, begun[7:], strict=False))
    assert begun[-1] < 15 * 62  # and not many fewer


def test_tokens_wait_until_enough_of_them_are_a_minute_old() -> None:
    made = gate(tokens_per_minute=100)
    made.begin(0.0, 60)
    made.begin(10.0, 30)
    assert made.delay(20.0, 10) == 0
    assert made.delay(20.0, 11) == pytest.approx(40.1)
    assert made.delay(20.0, 71) == pytest.approx(50.1)


def test_a_request_with_more_tokens_than_the_limit_begins_when_nothing_else_counts() -> None:
    made = gate(tokens_per_minute=100)
    assert made.delay(0.0, 1000) == 0
    made.begin(0.0, 1000)
    assert made.delay(0.0, 1) == pytest.approx(60.1)


def test_an_estimate_is_corrected_by_the_usage() -> None:
    target = Target("a", Limits(tokens_per_minute=100), clock=lambda: 0.0)
    lease = target.begin(Ticket(), lone=True, tokens=90)
    assert isinstance(lease, Lease)
    assert isinstance(target.begin(Ticket(), lone=True, tokens=20), Wait)
    lease.used(10)
    lease.used(12)
    assert isinstance(target.begin(Ticket(), lone=True, tokens=88), Lease)


def test_the_queue_is_served_in_its_order() -> None:
    target = Target("a", Limits(concurrency=1), clock=lambda: 0.0)
    first, second = Ticket(), Ticket()
    running = target.begin(first, lone=True)
    assert isinstance(running, Lease)
    target.enter(first)
    target.enter(second)
    running.release()
    assert isinstance(target.begin(second, lone=True), Wait)  # it is not its turn
    assert isinstance(target.begin(Ticket(), lone=True), Wait)
    served = target.begin(first, lone=True)
    assert isinstance(served, Lease)
    target.leave(first)
    served.release()
    assert isinstance(target.begin(second, lone=True), Lease)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4", 10**10])
@pytest.mark.parametrize("name", ["concurrency", "requests_per_minute", "tokens_per_minute"])
def test_a_limit_is_a_whole_number_from_one_on(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"{name} must be a whole number"):
        Limits(**{name: value})


def test_limits_of_a_model_are_limits() -> None:
    with pytest.raises(ValidationError, match=r"limits must be Limits, as in Limits\(concurr"):
        Client(ModelSpec("a", ScriptedModel("x"), limits=4))  # type: ignore[arg-type]


class Counted:
    """A step that counts how many scripts are at it together."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def enter(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def leave(self) -> None:
        with self._lock:
            self.now -= 1


def limited_client(face: Any, limits: Limits, *scripts: list[Step], **arguments: Any) -> Any:
    spec = ModelSpec("a", ScriptedModel(*scripts, model="a"), limits=limits)
    return face.client_class(spec, **arguments)


def test_many_questions_at_once_respect_the_limit(faces: Any) -> None:
    count = Counted()

    async def turn() -> None:
        while count.most < 3:
            await asyncio.sleep(0)
        for _ in range(5):  # a fourth one would come now
            await asyncio.sleep(0)

    script: list[Step] = ["x", count.enter, turn, count.leave]
    client = limited_client(faces.face, Limits(concurrency=3), *[script] * 30)
    answers = faces.run(client.ask(["hi"] * 30))
    assert [answer.text for answer in answers] == ["x"] * 30
    assert count.most == 3
    status = client.router.status()
    assert (status.policy, status.targets[0].requests, status.targets[0].running) == (None, 30, 0)


@pytest.mark.parametrize(
    ("wait", "timeout", "within"), [(600, 0.05, "0.05"), (0.05, None, "0.05"), (0, None, "0")]
)
def test_a_request_waits_for_its_turn_within_its_time_limit_or_that_of_the_limits(
    faces: Any, wait: float, timeout: float | None, within: str
) -> None:
    limits = Limits(requests_per_minute=1, wait=wait)
    client = limited_client(faces.face, limits, ["one"], ["two"])
    assert faces.run(client.ask("hi")).text == "one"
    reached = r"'a' has reached its limits for .* \(requests_per_minute=1\)"
    with pytest.raises(GenerationError, match=f"within {within} seconds: {reached}") as caught:
        faces.run(client.ask("hi", timeout=timeout))
    assert (caught.value.code, caught.value.details["limits"]) == (
        "GENERATION_TIMEOUT",
        {"a": {"requests_per_minute": 1}},
    )
    assert "wait= of its Limits" in str(caught.value)


def test_a_wait_that_depends_on_another_request_ends_too() -> None:
    async def main() -> None:
        going = asyncio.Event()
        limits = Limits(concurrency=1, wait=0.05)
        spec = ModelSpec("a", ScriptedModel(["x", going.wait]), limits=limits)
        async with AsyncClient(spec) as client:
            first = asyncio.create_task(client.ask("hi"))
            while client.router.status().targets[0].running == 0:
                await asyncio.sleep(0)
            with pytest.raises(GenerationError, match=r"limits \(concurrency=1\)") as caught:
                await client.ask("hi")
            assert caught.value.code == "GENERATION_TIMEOUT"
            going.set()
            assert (await first).text == "x"

    asyncio.run(main())


@pytest.mark.parametrize("wait", [-1, float("nan"), "4", True, None])
def test_a_wait_is_a_number_of_seconds(wait: Any) -> None:
    with pytest.raises(ValidationError, match="wait must be seconds from 0 to 1,000,000"):
        Limits(concurrency=1, wait=wait)


def test_a_request_that_waits_for_one_of_a_closed_loop_gets_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("talu.router.dispatch.RECHECK_S", 0.01)
    client = AsyncClient(ModelSpec("a", ScriptedModel("x"), limits=Limits(concurrency=1)))
    target = client.router._routing._targets["a"]
    other = asyncio.new_event_loop()

    async def begin() -> Lease | Wait:
        return target.begin(Ticket(), lone=True)

    async def main() -> str:
        async with client:
            waiting = asyncio.create_task(client.ask("hi"))
            while target.status().waiting == 0:
                await asyncio.sleep(0)
            other.close()
            return (await waiting).text

    lease = other.run_until_complete(begin())
    assert asyncio.run(main()) == "x"
    assert isinstance(lease, Lease)


def test_a_waiting_request_can_be_stopped() -> None:
    async def main() -> None:
        going, flag = asyncio.Event(), StopFlag()
        spec = ModelSpec(
            "a", ScriptedModel(["x", going.wait], "never"), limits=Limits(concurrency=1)
        )
        async with AsyncClient(spec) as client:
            first = asyncio.create_task(client.ask("hi"))
            while client.router.status().targets[0].running == 0:
                await asyncio.sleep(0)
            second = asyncio.create_task(client.ask("hi", stop_flag=flag))
            while client.router.status().targets[0].waiting == 0:
                await asyncio.sleep(0)
            flag.signal()
            assert (await second).finish_reason is FinishReason.CANCELLED
            assert client.router.status().targets[0].waiting == 0
            going.set()
            assert (await first).text == "x"

    asyncio.run(main())


def test_a_waiting_task_that_is_cancelled_leaves_the_queue() -> None:
    async def main() -> None:
        going = asyncio.Event()
        spec = ModelSpec("a", ScriptedModel(["x", going.wait], "y"), limits=Limits(concurrency=1))
        async with AsyncClient(spec) as client:
            first = asyncio.create_task(client.ask("hi"))
            while client.router.status().targets[0].running == 0:
                await asyncio.sleep(0)
            gone = asyncio.create_task(client.ask("hi"))
            while client.router.status().targets[0].waiting == 0:
                await asyncio.sleep(0)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            last = asyncio.create_task(client.ask("hi"))
            going.set()
            assert [(await first).text, (await last).text] == ["x", "y"]

    asyncio.run(main())


def test_a_full_queue_is_an_error(faces: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talu.router.targets.MAX_WAITING", 0)
    client = limited_client(faces.face, Limits(concurrency=1), ["x"])
    with pytest.raises(ResourceError, match="0 requests wait for model 'a' already"):
        faces.run(client.ask("hi"))


def test_with_a_policy_a_request_above_the_limits_goes_to_the_next_model(faces: Any) -> None:
    specs = [
        ModelSpec("a", ScriptedModel("one", model="a"), limits=Limits(requests_per_minute=1)),
        ModelSpec("b", ScriptedModel("two", model="b")),
    ]
    client = faces.face.client_class(specs, policy=Fallback())
    first, second = faces.run(client.ask("hi")), faces.run(client.ask("hi"))
    assert (first.text, second.text) == ("one", "two")
    assert "it has reached its limits" in second.notes[0]


def test_a_model_that_is_named_counts_against_the_same_limits(faces: Any) -> None:
    specs = [
        ModelSpec("a", ScriptedModel("one", model="a"), limits=Limits(requests_per_minute=1)),
        ModelSpec("b", ScriptedModel("two", model="b")),
    ]
    client = faces.face.client_class(specs, policy=Fallback())
    assert faces.run(client.ask("hi", model="a")).text == "one"
    assert faces.run(client.ask("hi")).model == "b"


def test_a_model_with_limits_can_do_what_it_can_do_without_them() -> None:
    with Client(ModelSpec("talu/pocket", limits=Limits(concurrency=1))) as client:
        ids = client.tokenize("Hello there")
        assert client.detokenize(ids) == "Hello there"
        assert client.count_tokens("Hello there") == len(ids)
        assert len(client.embed("Hello")) > 1
        assert client.chat().max_context_length is not None
        assert client.capabilities().embeddings
        with_limit = client.ask("What is 2+2?", temperature=0)
    with Client("talu/pocket") as plain:
        assert plain.ask("What is 2+2?", temperature=0) == with_limit


class Reporting(ScriptedModel):
    """A model whose server says how long it takes no request."""

    def closed_for(self) -> float | None:
        return 70.0 if self.requests else None


@pytest.mark.parametrize("fails", [False, True])
def test_a_server_that_takes_no_more_requests_is_left_alone(faces: Any, fails: bool) -> None:
    script: list[Step] = [GenerationError("no")] if fails else ["one"]
    client = faces.client_of(
        Reporting(script, model="a"), ScriptedModel("two", "three", model="b"), policy=Fallback()
    )
    faces.run(client.ask("hi"))
    assert faces.run(client.ask("hi")).model == "b"


def test_the_pause_that_a_server_asks_for_is_bounded_by_wait_and_seen_in_the_status(
    faces: Any,
) -> None:
    client = faces.client_of(Reporting("one", model="a"), policy=Fallback(wait=0.05))
    faces.run(client.ask("hi"))
    with pytest.raises(
        EndpointError, match=r"'a' is cooling down for .* \(its server takes no"
    ) as caught:
        faces.run(client.ask("hi"))
    assert caught.value.code == "MODELS_COOLING"
    assert 60 < (caught.value.retry_after or 0) <= 70
    target = client.router.status().targets[0]
    assert 60 < target.cooling_s <= 70
    assert (target.cooling_reason, target.failures) == ("its server takes no request until then", 0)


@pytest.mark.parametrize(("wait", "bound"), [(0.05, "0.05"), (40, "40")])
def test_without_a_policy_the_limits_bound_the_wait_that_a_server_asks_for(
    faces: Any, wait: float, bound: str
) -> None:
    spec = ModelSpec("a", Reporting("one", model="a"), limits=Limits(concurrency=1, wait=wait))
    client = faces.face.client_class(spec)
    faces.run(client.ask("hi"))
    with pytest.raises(EndpointError, match=f"within {bound} seconds: 'a' is cooling down"):
        faces.run(client.ask("hi"))


def test_the_usage_of_an_answer_counts(faces: Any) -> None:
    done = Done(FinishReason.STOP, Usage(400, 600), Timings(), "a")
    client = limited_client(faces.face, Limits(tokens_per_minute=1000), ["x", done], ["y"])
    faces.run(client.ask("hi", max_tokens=1))
    with pytest.raises(GenerationError, match="has reached its limits"):
        faces.run(client.ask("hi", max_tokens=1, timeout=0.02))


def test_under_load_every_request_ends_and_nothing_stays_counted() -> None:
    async def tick() -> None:
        await asyncio.sleep(0)

    def scripts(name: str) -> ScriptedModel:
        fails: list[Step] = [EndpointError("no", "BAD_REQUEST")]
        return ScriptedModel(*[fails if n % 5 == 4 else ["x", tick, "y"] for n in range(900)])

    async def ask(client: AsyncClient, number: int) -> str:
        task = asyncio.create_task(client.ask(f"{number}"))
        if number % 7 == 0:
            for _ in range(number % 20):
                await asyncio.sleep(0)
            task.cancel()
        try:
            return (await task).text
        except asyncio.CancelledError:
            return "cancelled"
        except GenerationError as error:
            return str(error)

    async def main() -> None:
        limits = Limits(concurrency=3)
        specs = [ModelSpec(name, scripts(name), limits=limits) for name in ("a", "b", "c", "d")]
        async with AsyncClient(specs, policy=LeastBusy(hedge=True)) as client:
            results = await asyncio.gather(*(ask(client, number) for number in range(200)))
            await asyncio.gather(*CLOSING)  # attempts that were cancelled
            counts = [(each.running, each.waiting) for each in client.router.status().targets]
            assert counts == [(0, 0)] * 4
            assert results.count("xy") >= 160
            assert {each[:15] for each in results} <= {"xy", "cancelled", "no model answer"}

    asyncio.run(main())
