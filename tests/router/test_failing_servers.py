"""Policies over real servers that fail now and then, break later, or are gone."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.server import Cut, Gate, Received, Reply, Server

from talu import AsyncClient, ModelSpec, OpenAICompatibleBackend, ScriptedModel
from talu.backends.remote.attempts import Waiting
from talu.exceptions import EndpointError, GenerationError
from talu.router import Fallback, First, Limits, Policy, RoundRobin, TargetStatus


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    """Ends the servers of a test."""
    with ExitStack() as stack:
        yield stack


def spec(
    server: Server, name: str, limits: Limits | None = None, retries: int | None = None
) -> ModelSpec:
    backend = OpenAICompatibleBackend(server.base_url, max_retries=retries)
    return ModelSpec("m", backend, name=name, limits=limits)


def busy_for(seconds: float) -> Reply:
    """A refusal with the time of the server."""
    error = {"error": {"message": "slow down"}}
    return replies.json_reply(error, 429, (("retry-after", str(seconds)),))


def first(client: Any) -> TargetStatus:
    """The state of the first model."""
    status: TargetStatus = client.router.status().targets[0]
    return status


def failing_every_seventh(remainder: int) -> Any:
    """What answers all questions, which are numbers, but every seventh."""

    def answer(request: Received) -> Reply:
        number = int(request.json["messages"][-1]["content"])
        return replies.failure(503) if number % 7 == remainder else replies.chat("a", "b")

    return answer


@pytest.mark.parametrize("policy", [Fallback, RoundRobin])
def test_servers_that_fail_now_and_then_answer_for_each_other(
    servers: ExitStack, policy: type[Policy]
) -> None:
    makers = [failing_every_seventh(0), failing_every_seventh(3)]
    one, two = (servers.enter_context(Server(always=maker)) for maker in makers)

    async def main() -> list[Any]:
        limits = Limits(concurrency=4)
        specs = [spec(one, "a", limits), spec(two, "b", limits)]
        async with AsyncClient(specs, policy=policy()) as client:
            asked = [client.ask(str(number), timeout=60) for number in range(140)]
            return await asyncio.gather(*asked)

    answers = asyncio.run(main())
    assert answers == ["ab"] * 140
    assert {answer.attempts[-1].model for answer in answers} == {"a", "b"}


def test_a_server_whose_answers_always_break_is_not_asked_for_longer_and_longer(
    faces: Any, servers: ExitStack
) -> None:
    breaking = Server(always=lambda _: replies.stream(replies.delta("a"), Cut()))
    good = Server(always=lambda _: replies.chat("b"))
    specs = [spec(servers.enter_context(server), server.url) for server in (breaking, good)]
    client = faces.face.client_class(specs, policy=Fallback())
    for pause in (1.0, 2.0, 4.0):
        with pytest.raises(EndpointError, match="broke off"):
            faces.run(client.chat().send("hi", on_token=lambda piece: None))
        assert [faces.run(client.ask("hi")) for _ in range(3)] == ["b"] * 3
        assert pause / 2 < first(client).cooling_s <= pause
        client.router._routing._targets[breaking.url]._health.until = 0.0  # the pause is over
    assert (len(breaking.requests), first(client).failures_in_a_row) == (3, 3)
    faces.run(client.close())


def test_a_server_that_is_gone_is_left_at_once(faces: Any, servers: ExitStack) -> None:
    gone, good = Server(always=lambda _: replies.chat("a")), Server(replies.chat("b"))
    servers.enter_context(good)
    client = faces.face.client_class([spec(gone, "a"), spec(good, "b")], policy=Fallback())
    for _ in range(5):
        assert faces.run(client.ask("hi")) == "a"
    gone.close()
    assert faces.run(client.ask("hi")) == "b"
    assert (first(client).failures, first(client).cooling_s > 0) == (1, True)
    faces.run(client.close())


def test_a_server_whose_headers_say_that_nothing_is_left_is_not_asked_until_then(
    faces: Any, servers: ExitStack
) -> None:
    used_up = [("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "50s")]
    server = servers.enter_context(
        Server(replies.stream(*replies.chat_events("a"), headers=used_up))
    )
    client = faces.face.client_class(spec(server, "a"), policy=Fallback(wait=0.05))
    assert faces.run(client.ask("hi")) == "a"
    assert 40 < first(client).cooling_s <= 50
    said = r"'a' is cooling down for .* \(its server takes no request until then\)"
    with pytest.raises(EndpointError, match=said) as caught:
        faces.run(client.ask("hi"))
    assert caught.value.code == "MODELS_COOLING"
    faces.run(client.close())


LONE: list[tuple[Policy | None, Limits | None]] = [(None, Limits(concurrency=1)), (First(), None)]


@pytest.mark.parametrize(("policy", "limits"), LONE)
@pytest.mark.parametrize(("retries", "requests"), [(0, 1), (1, 2), (None, 3)])
def test_a_request_is_repeated_after_the_time_of_the_server_as_often_as_max_retries_allows(
    awaited: Any,
    monkeypatch: pytest.MonkeyPatch,
    servers: ExitStack,
    policy: Policy | None,
    limits: Limits | None,
    retries: int | None,
    requests: int,
) -> None:
    server = servers.enter_context(Server(always=lambda _: busy_for(0.01)))
    client = awaited.face.client_class(spec(server, "a", limits, retries), policy=policy)
    monkeypatch.setattr("talu.router.health.FIRST_PAUSE_S", 0.0)  # only the server's own times
    with pytest.raises(EndpointError) as caught:
        awaited.run(client.ask("hi", timeout=20))
    assert len(server.requests) == requests
    assert len(caught.value.attempts) == requests
    awaited.run(client.close())


def test_failures_of_both_kinds_are_counted_together(awaited: Any, servers: ExitStack) -> None:
    both = (replies.failure(503), busy_for(0.01))
    server = servers.enter_context(Server(always=lambda asked: both[asked.number % 2]))
    client = awaited.face.client_class(spec(server, "a", Limits(concurrency=1), 2))
    with pytest.raises(EndpointError):
        awaited.run(client.ask("hi", timeout=20))
    assert len(server.requests) == 3
    awaited.run(client.close())


@pytest.mark.parametrize("wait", [1, 20])
def test_the_wait_for_the_last_model_is_bounded_and_seen_and_takes_no_slot(
    awaited: Any, servers: ExitStack, wait: float
) -> None:
    server = servers.enter_context(Server(busy_for(6), replies.chat("ok")))
    specs = [ModelSpec("vlmm::m", name="x"), spec(server, "a", Limits(concurrency=1))]
    client = awaited.face.client_class(specs, policy=Fallback(wait=wait))

    async def main() -> TargetStatus:
        asked = asyncio.create_task(client.ask("hi"))
        while not (asked.done() or client.router.status().targets[1].cooling_s):
            await asyncio.sleep(0.01)
        status: TargetStatus = client.router.status().targets[1]
        asked.cancel()
        (result,) = await asyncio.gather(asked, return_exceptions=True)
        assert isinstance(result, EndpointError if wait == 1 else asyncio.CancelledError)
        return status

    status = awaited.run(main())
    assert 4 < status.cooling_s <= 6
    assert "slow down" in (status.cooling_reason or "")
    assert status.running == 0
    awaited.run(client.close())


def test_a_request_that_a_server_refuses_gives_its_estimated_tokens_back(
    awaited: Any, servers: ExitStack
) -> None:
    server = servers.enter_context(Server(*[replies.failure(400)] * 3, replies.chat("ok")))
    limits = Limits(tokens_per_minute=1000, wait=0.05)
    client = awaited.face.client_class(spec(server, "a", limits))
    for _ in range(3):
        with pytest.raises(EndpointError):
            awaited.run(client.ask("hi", max_tokens=900))
    assert awaited.run(client.ask("hi", max_tokens=900)) == "ok"
    awaited.run(client.close())


def test_a_model_that_gets_nothing_uses_none_of_its_requests_and_tokens(
    awaited: Any, servers: ExitStack
) -> None:
    class Narrow(ScriptedModel):
        settings = ("max_tokens",)

    limits = Limits(requests_per_minute=1, tokens_per_minute=500)
    narrow = ModelSpec("a", Narrow("yes", model="a"), limits=limits)
    gone = Server()
    gone.close()
    other = ScriptedModel("other", "other", "other", model="c")
    specs = [narrow, spec(gone, "b", limits), ModelSpec("c", other)]
    client = awaited.face.client_class(specs, policy=Fallback())
    answer = awaited.run(client.ask("hi", seed=3))
    assert [each.error for each in answer.attempts] == ["UNSUITABLE", "ENDPOINT_UNREACHABLE", None]
    gates = [client.router._routing._targets[name]._gate for name in ("a", "b")]
    assert [gate.delay(gate._slots[-1].at, 500) for gate in gates] == [0.0, 0.0]
    assert awaited.run(client.ask("hi")).model == "a"
    awaited.run(client.close())


def test_wrong_keys_are_the_error_of_later_requests_as_well_and_at_once(
    faces: Any, servers: ExitStack
) -> None:
    error = {"error": {"message": "no such key"}}
    refusing = [Server(always=lambda _: replies.json_reply(error, 401)) for _ in range(2)]
    specs = [spec(servers.enter_context(server), server.url) for server in refusing]
    client = faces.face.client_class(specs, policy=Fallback())
    for _ in range(2):
        with pytest.raises(EndpointError, match="no such key") as caught:
            faces.run(client.ask("hi"))
        assert (caught.value.code, caught.value.status) == ("AUTHENTICATION_FAILED", 401)
        assert caught.value.transient is False
    assert "again after" in str(caught.value)
    assert [len(server.requests) for server in refusing] == [1, 1]
    faces.run(client.close())


def test_a_wrong_key_of_one_server_does_not_hide_that_another_one_is_busy(
    faces: Any, servers: ExitStack
) -> None:
    refusing = Server(always=lambda _: replies.failure(401))
    busy = Server(busy_for(0.2), replies.chat("later"))
    specs = [spec(servers.enter_context(server), server.url) for server in (refusing, busy)]
    client = faces.face.client_class(specs, policy=Fallback())
    assert faces.run(client.ask("hi")) == "later"
    faces.run(client.close())


def test_requests_that_wait_for_the_reset_of_a_limit_begin_few_at_a_time(
    servers: ExitStack,
) -> None:
    at_once: list[int] = []

    def answer(request: Received) -> Reply:
        running = first(client).running
        at_once.append(running)
        left = [("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "100ms")]
        return replies.stream(*replies.chat_events("x"), headers=left if request.number < 2 else [])

    server = servers.enter_context(Server(always=answer))
    client = AsyncClient(spec(server, "a"), policy=Fallback())

    async def main() -> None:
        await client.ask("hi")
        await asyncio.gather(*(client.ask("hi") for _ in range(12)))
        await client.close()

    asyncio.run(main())
    assert len(at_once) == 13
    assert at_once[1:3] == [1, 1]  # the second answer says again that nothing is left
    assert max(at_once[3:6]) <= 4


def test_every_request_that_a_model_repeats_is_an_attempt(faces: Any, servers: ExitStack) -> None:
    flaky = servers.enter_context(Server(replies.failure(503), replies.chat("b")))
    gone = Server()
    gone.close()
    specs = [spec(gone, "a"), spec(flaky, "b")]
    client = faces.face.client_class(specs, policy=Fallback())
    answer = faces.run(client.ask("hi"))
    assert [(each.model, each.error) for each in answer.attempts] == [
        ("a", "ENDPOINT_UNREACHABLE"),
        ("b", "SERVER_ERROR"),
        ("b", None),
    ]
    starts = [each.started_ms for each in answer.attempts]
    assert starts == sorted(starts)
    assert all(each.location for each in answer.attempts)
    faces.run(client.close())


def test_the_repeated_requests_of_a_slower_model_are_attempts_and_a_failure(
    servers: ExitStack,
) -> None:
    flaky = servers.enter_context(Server(replies.failure(503), Reply(before=(Gate(),))))

    async def repeated() -> None:
        while len(flaky.requests) < 2:
            await asyncio.sleep(0.01)

    specs = [spec(flaky, "a", retries=1), ModelSpec("b", ScriptedModel([repeated, "b"]))]
    client = AsyncClient(specs, policy=Fallback(hedge=True))
    hedging = client.router._routing._hedging
    for _ in range(20):
        hedging.observe(0.001)
        hedging.request()

    async def main() -> None:
        answer = await client.ask("hi")
        refused, slower = [each for each in answer.attempts if each.model == "a"]
        assert (refused.error, slower.error) == ("SERVER_ERROR", "SLOWER")
        state = client.router.status().targets[0]
        assert (state.failures, state.last_error) == (1, refused.reason)
        await client.close()

    asyncio.run(main())


def test_a_slower_model_that_waits_to_repeat_a_request_has_failed(servers: ExitStack) -> None:
    failing = servers.enter_context(Server(replies.failure(503)))

    async def main() -> None:
        specs = [spec(failing, "a", retries=1), ModelSpec("b", ScriptedModel([refused, "b"]))]
        client = AsyncClient(specs, policy=Fallback(hedge=True))
        hedging = client.router._routing._hedging
        for _ in range(20):
            hedging.observe(0.001)
            hedging.request()
        answer = await client.ask("hi")
        errors = [each.error for each in answer.attempts if each.model == "a"]
        assert errors == ["SERVER_ERROR"]
        assert client.router.status().targets[0].failures == 1
        await client.close()

    begun = asyncio.Event()
    waits = Waiting.pause

    async def pause(self: Waiting, seconds: float) -> None:
        begun.set()
        await waits(self, 60)

    async def refused() -> None:
        await begun.wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Waiting, "pause", pause)
        asyncio.run(main())


def test_requests_that_failed_before_the_callers_time_was_over_are_attempts_and_a_failure(
    faces: Any, servers: ExitStack
) -> None:
    flaky = servers.enter_context(Server(replies.failure(503), Reply(before=(Gate(),))))
    client = faces.face.client_class(spec(flaky, "a", retries=1), policy=Fallback())
    with pytest.raises(GenerationError, match="within timeout") as caught:
        faces.run(client.ask("hi", timeout=2))
    refused, late = caught.value.attempts
    assert (refused.error, late.error) == ("SERVER_ERROR", "GENERATION_TIMEOUT")
    assert (first(client).failures, first(client).last_error) == (1, refused.reason)
    faces.run(client.close())
