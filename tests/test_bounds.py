"""Every number and length that a caller controls has a bound, which is accepted, and enforced."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talu import Client, CompletionOptions, GenerationConfig, LocalBackend, ModelSpec
from talu.engine.stops import StopMatcher
from talu.exceptions import TaluError, ValidationError

HUGE = 10**5000
NESTED: list[Any] = []
for _ in range(100):
    NESTED = [NESTED]
SETTINGS = {  # name: the largest value, and values that exceed it
    "max_tokens": (2**31 - 1, [2**31, HUGE]),
    "temperature": (1000.0, [1000.5, HUGE, float("inf"), -HUGE]),
    "top_k": (2**31 - 1, [2**31, HUGE]),
    "validation_retries": (10, [11, HUGE]),
    "max_thinking_tokens": (2**31 - 1, [2**31, HUGE]),
    "top_p": (1.0, [1.01, HUGE]),
    "min_p": (1.0, [1.01, HUGE]),
    "repetition_penalty": (1000.0, [1001, HUGE, 0.0]),
    "presence_penalty": (2.0, [2.01, -2.01, HUGE]),
    "frequency_penalty": (2.0, [2.01, -2.01, HUGE]),
    "seed": (2**64 - 1, [2**64, HUGE]),
    "top_logprobs": (20, [21, HUGE]),
    "stop_sequences": (["x" * 1000] * 64, [["x"] * 65, ["x" * 1001], ["x" * 10**7]]),
    "stop_token_ids": (list(range(10_000)), [list(range(10_001)), set(range(10_001))]),
    "logit_bias": (
        dict.fromkeys(range(10_000), 1e6),
        [dict.fromkeys(range(10_001), 1.0), {1: 1e7}, {1: HUGE}],
    ),
    "cache_namespace": ("x" * 256, ["x" * 257, "x" * 10**7]),
    "extra_body": (
        {"x": "y" * 999_991},
        [{"x": "y" * 999_992}, {"x": HUGE}, {"y" * 10**6: 1}, {"x": NESTED}],
    ),
}
BEYOND = [(name, value) for name, (_, values) in SETTINGS.items() for value in values]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_largest_value_of_a_setting_is_accepted(name: str) -> None:
    largest = SETTINGS[name][0]
    assert getattr(GenerationConfig(**{name: largest}), name) == largest


@pytest.mark.parametrize(("name", "value"), BEYOND, ids=[name for name, _ in BEYOND])
def test_a_setting_beyond_its_bound_is_named_in_a_short_error(name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        GenerationConfig(**{name: value})
    assert str(caught.value).startswith(name)
    assert len(str(caught.value)) < 400


def test_every_setting_that_is_a_number_or_a_collection_is_in_the_table() -> None:
    fields = GenerationConfig().to_dict()
    switches = {name for name, value in fields.items() if isinstance(value, bool)}
    text = {"chat_template", "extra_context", "response_format"}  # limited when they are used
    text |= {"schema_strategy"}  # one of a few words
    assert fields.keys() - switches - text - SETTINGS.keys() == set()


@pytest.fixture(scope="module")
def client() -> Any:
    with Client("talu/pocket") as client:
        yield client


ARGUMENTS: dict[str, Callable[[Client], object]] = {
    "too many token ids": lambda c: c.raw_complete(
        "", completion_opts=CompletionOptions(token_ids=[1] * (2**22 + 1))
    ),
    "a huge token id": lambda c: c.raw_complete(
        "", completion_opts=CompletionOptions(token_ids=[HUGE])
    ),
    "a huge token to continue from": lambda c: c.raw_complete(
        "", completion_opts=CompletionOptions(continue_from_token_id=HUGE)
    ),
    "a huge end token": lambda c: c.ask("Hi", stop_token_ids=[HUGE]),
    "a huge token with a bias": lambda c: c.ask("Hi", logit_bias={HUGE: 1.0}),
    "a long name of a model": lambda c: c.ask("Hi", model="x" * 10**6),
    "a long reference": lambda _: Client("x" * 10**6).ask("Hi"),
    "a long hub id": lambda _: Client("x/" + "x" * 10**6).ask("Hi"),
    "a long path": lambda _: Client(Path("x" * 10**6)).ask("Hi"),
    "a long provider": lambda _: Client("x" * 10**6 + "::x").ask("Hi"),
    "too many threads": lambda _: Client(
        ModelSpec("talu/pocket", LocalBackend(num_threads=HUGE))
    ).ask("Hi"),
    "too many GPU layers": lambda _: Client("talu/pocket", gpu_layers=HUGE).ask("Hi"),
    "too many messages": lambda c: c.ask([{"role": "user", "content": "x"}] * 100_001),
    "too many messages of an iterator": lambda c: c.chat(
        messages=({"role": "user", "content": "x"} for _ in range(100_001))
    ),
    "too many parts of a message": lambda c: c.chat().send([{"type": "text"}] * 100_001),
    "too many parts of a message with a role": lambda c: c.ask(
        [{"role": "user", "content": [{"type": "text", "text": "x"}] * 100_001}]
    ),
    "a long pooling": lambda c: c.embed("Hi", pooling="x" * 10**6),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_beyond_its_bound_is_a_short_typed_error(name: str, client: Client) -> None:
    with pytest.raises(TaluError) as caught:
        ARGUMENTS[name](client)
    assert len(str(caught.value)) < 1000


def test_the_largest_stop_sequences_cost_little() -> None:
    stops = ["".join(chr(97 + (n * k * k) % 26) for k in range(1000)) for n in range(64)]
    begun = time.process_time()
    matcher = StopMatcher(stops)
    for _ in range(1000):
        matcher.push("abca")
    assert time.process_time() - begun < 5
