"""Three real llama.cpp servers with one model, behind one name."""

import signal
from typing import Any

from tests.remote.llama import LlamaCpp

from talu import ModelSpec, OpenAICompatibleBackend
from talu.router import RoundRobin, Sticky

SHORT = {"max_tokens": 2, "temperature": 0}
LONG = "Tell me about the old town, its river, its bridges, its markets and its people. " * 3


def specs(replicas: list[LlamaCpp]) -> list[ModelSpec]:
    return [
        ModelSpec("smollm2", OpenAICompatibleBackend(server.base_url), name=f"gpu-{number}")
        for number, server in enumerate(replicas)
    ]


def test_a_conversation_stays_with_the_replica_that_has_its_beginning_in_the_cache(
    awaiting: Any, replicas: list[LlamaCpp]
) -> None:
    remote = awaiting
    client = remote.client_of(*specs(replicas), policy=Sticky())
    chat = client.chat()
    first = remote.run(chat.send(LONG, **SHORT))
    second = remote.run(chat.send("And its food?", **SHORT))
    assert first.model == second.model
    assert second.usage.cached_tokens > first.usage.prompt_tokens / 2
    fresh = remote.client_of(*specs(replicas), policy=Sticky())
    again = remote.run(fresh.ask(LONG, **SHORT))
    assert again.model == first.model
    assert again.usage.cached_tokens > again.usage.prompt_tokens / 2


def test_a_replica_that_stalls_is_hedged(awaiting: Any, replicas: list[LlamaCpp]) -> None:
    remote = awaiting
    client = remote.client_of(*specs(replicas), policy=RoundRobin(hedge=True))
    for _ in range(21):  # the times that hedging needs to know
        remote.run(client.ask("Count.", **SHORT))
    stalled = replicas[0]._process
    stalled.send_signal(signal.SIGSTOP)
    try:
        answers = [remote.run(client.ask("Count.", **SHORT)) for _ in range(3)]
    finally:
        stalled.send_signal(signal.SIGCONT)
    hedged = [each for each in answers if [a.error for a in each.attempts] == ["SLOWER", None]]
    assert "gpu-0" in [each.attempts[0].model for each in hedged]
    assert client.router.status().hedged >= 1
