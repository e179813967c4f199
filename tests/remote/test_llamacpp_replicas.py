"""Three real llama.cpp servers with one model, behind one name."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.remote.llama import LlamaCpp

from talu import ModelSpec, OpenAICompatibleBackend
from talu.router import RoundRobin, Sticky

EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster" / "cluster.py"
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


def test_the_example_of_a_cluster_runs_on_real_servers(replicas: list[LlamaCpp]) -> None:
    urls = [server.base_url for server in replicas]
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE, "smollm2", *urls],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for topic, line in zip(("Rome", "Paris", "Tokyo"), lines, strict=False):
        found = re.fullmatch(rf"{topic}: (\S+), (\S+); (\d+) tokens cached", line)
        assert found is not None
        assert found[1] == found[2] in urls
        assert int(found[3]) > 10
    assert re.fullmatch(r"8 answers from [123] replicas", lines[3])
    assert [line.split(": ")[0] for line in lines[4:]] == urls
    requests = [int(re.findall(r": (\d+) requests, 0 failed", line)[0]) for line in lines[4:]]
    assert sum(requests) >= 14
