"""A router over several real servers: one fails, stalls or is killed, and the others answer."""

import asyncio
import threading
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.llama import ALIAS, LlamaCpp
from tests.remote.replies import delta, failure
from tests.remote.server import Cut, Gate, Reply, Server

from talu import ModelSpec, OpenAICompatibleBackend
from talu.exceptions import EndpointError
from talu.router import Fallback, RoundRobin


def specs(*servers: Server | LlamaCpp, model: str = "m", **options: Any) -> list[ModelSpec]:
    """One model at several servers, named by their place."""
    return [
        ModelSpec(model, OpenAICompatibleBackend(server.base_url, **options), name=f"r{place}")
        for place, server in enumerate(servers)
    ]


def attempts(answer: Any) -> list[tuple[str, str | None]]:
    """Who was asked, and with what error."""
    return [(attempt.model, attempt.error) for attempt in answer.attempts]


BAD: dict[str, tuple[Reply, str]] = {
    "503": (failure(503), "SERVER_ERROR"),
    "429": (failure(429, headers=[("retry-after", "60")]), "RATE_LIMITED"),
    "a cut": (Reply(before=(Cut(),)), "ENDPOINT_UNREACHABLE"),
    "an error event": (replies.stream(replies.ERRORS_IN_EVENTS["vllm"]), "SERVER_ERROR"),
    "a break before the first token": (replies.stream(delta("", role="a")), "STREAM_BROKEN"),
    "no credits": (failure(402), "OUT_OF_CREDITS"),
    "a wrong key": (failure(401), "AUTHENTICATION_FAILED"),
    "a model that it does not have": (failure(404, "no model m"), "MODEL_NOT_FOUND"),
    "a page": (replies.html(), "ENDPOINT_BAD_ANSWER"),
}


@pytest.mark.parametrize("name", BAD)
def test_another_server_answers_when_one_fails(remote: Any, serve: Any, name: str) -> None:
    reply, error = BAD[name]
    bad, good = serve(reply), serve(replies.chat("a", "b"))
    client = remote.client_of(*specs(bad, good), policy=Fallback())
    answer = remote.run(client.ask("hi"))
    assert (answer, attempts(answer)) == ("ab", [("r0", error), ("r1", None)])
    assert (len(bad.requests), len(good.requests)) == (1, 1)
    assert [attempt.location for attempt in answer.attempts] == [bad.base_url, good.base_url]


@pytest.mark.parametrize("name", BAD)
def test_a_stream_is_taken_over_before_its_first_token(remote: Any, serve: Any, name: str) -> None:
    bad, good = serve(BAD[name][0]), serve(replies.chat("a", "b"))
    client = remote.client_of(*specs(bad, good), policy=Fallback())
    stream = remote.stream(client)
    assert [str(piece) for piece in remote.read(stream)] == ["a", "b", ""]


def test_a_stream_that_breaks_later_is_an_error_and_nobody_else_is_asked(
    remote: Any, serve: Any
) -> None:
    bad, good = serve(replies.stream(delta("a"), Cut())), serve()
    client = remote.client_of(*specs(bad, good), policy=Fallback())
    stream = remote.stream(client)
    with pytest.raises(EndpointError) as caught:
        remote.read(stream)
    assert (caught.value.code, stream.text, good.requests) == ("STREAM_BROKEN", "a", [])


def test_a_server_that_stalls_is_left_after_its_time(remote: Any, serve: Any) -> None:
    slow, good = serve(replies.stream(before=(Gate(),))), serve(replies.chat("ab"))
    backends = [*specs(slow, good, first_token_timeout_ms=300)]
    answer = remote.run(remote.client_of(*backends, policy=Fallback()).ask("hi"))
    assert (answer, answer.attempts[0].error) == ("ab", "ENDPOINT_TIMEOUT")
    slow.request.wait_closed()


def test_a_race_closes_the_connections_of_the_slower_ones(remote: Any, serve: Any) -> None:
    gate = Gate()
    slow = serve(replies.stream(before=(Gate(),)))
    good = serve(replies.stream(*replies.chat_events("ab"), before=(gate,)))
    client = remote.client_of(*specs(slow, good))
    both = threading.Thread(target=lambda: (slow.wait_for(1), gate.open()))
    both.start()
    assert remote.run(client.race("hi")) == "ab"
    slow.request.wait_closed()
    both.join()


def test_all_models_are_asked_at_once_and_a_failure_is_in_its_place(
    remote: Any, serve: Any
) -> None:
    first, second, third = serve(replies.chat("a")), serve(failure(400)), serve(replies.chat("c"))
    client = remote.client_of(*specs(first, second, third))
    answers = remote.run(client.ask_all("hi", models=["r0", "r1", "r2"]))
    assert (answers[0], answers[1].code, answers[2]) == ("a", "BAD_REQUEST", "c")


def test_a_hedge_asks_a_second_server_and_stops_the_slow_one(awaiting: Any, serve: Any) -> None:
    gate = Gate()
    slow_now: list[bool] = []

    def answer(_: Any) -> Reply:
        return replies.stream(before=(gate,)) if slow_now else replies.chat("ab")

    first, second = serve(always=answer), serve(always=lambda _: replies.chat("ab"))
    client = awaiting.client_of(*specs(first, second), policy=Fallback(hedge=True))
    for _ in range(20):  # enough to know what is slow
        awaiting.run(client.ask("hi"))
    slow_now.append(True)
    hedged = awaiting.run(client.ask("hi"))
    assert (hedged, attempts(hedged)) == ("ab", [("r0", "SLOWER"), ("r1", None)])
    awaiting.run(asyncio.to_thread(first.requests[-1].wait_closed))


def test_no_request_fails_when_a_replica_is_killed_under_load(
    awaiting: Any, replicas: list[LlamaCpp]
) -> None:
    client = awaiting.client_of(*specs(*replicas, model=f"llamacpp::{ALIAS}"), policy=RoundRobin())

    async def ask(number: int) -> Any:
        return await client.ask(f"Count to {number}.", temperature=0.0, max_tokens=2)

    async def load() -> tuple[list[Any], list[Any]]:
        before = await asyncio.gather(*map(ask, range(3)))
        replicas[0].kill()
        return before, await asyncio.gather(*map(ask, range(6)))

    before, after = awaiting.run(load())
    assert {answer.attempts[-1].model for answer in before} == {"r0", "r1", "r2"}
    assert {answer.attempts[-1].model for answer in after} == {"r1", "r2"}
    assert [answer.usage.completion_tokens for answer in after] == [2] * 6
    failed = [attempt for answer in after for attempt in answer.attempts if attempt.error]
    assert {(attempt.model, attempt.error) for attempt in failed} == {
        ("r0", "ENDPOINT_UNREACHABLE")
    }
