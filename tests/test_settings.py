"""Every setting has its defined effect through the public API, streamed or not.

The logits of the model in the package are recorded as it computes them, and the answer is made
again from them with the definition of sampling in NumPy.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from talu import Client, CompletionOptions
from talu.exceptions import ValidationError
from talu.graph import numpy_sampler
from talu.graph.sampler import SampleRow, SamplerSettings
from talu.types import Request

STORY = "Tell me a story about a fox."
OFF: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 7}
SETTINGS = {
    "greedy": {"temperature": 0},
    "seed": {},
    "another seed": {"seed": 2**64 - 1},
    "temperature": {"temperature": 1.7},
    "top_k": {"temperature": 3, "top_k": 3},
    "top_p": {"temperature": 3, "top_p": 0.4},
    "min_p": {"temperature": 3, "min_p": 0.3},
    "all filters": {"temperature": 2, "top_k": 20, "top_p": 0.8, "min_p": 0.05},
    "repetition_penalty": {"repetition_penalty": 1.5},
    "greedy with repetition_penalty": {"temperature": 0, "repetition_penalty": 1.5},
    "logit_bias": {"logit_bias": {500: 8.5, 501: 8.0, 13: -100}},
}


class Recorder:
    """Wraps the executor of an engine and records its logits."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self.logits: list[np.ndarray] = []

    def step(self, *arrays: Any) -> Any:
        result = self._executor.step(*arrays)
        self.logits.extend(np.array(result))
        return result

    def close(self) -> None:
        self._executor.close()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client("talu/pocket", num_threads=1) as client:  # an engine that no other test has open
        yield client


@pytest.fixture
def recorder(client: Client) -> Iterator[Recorder]:
    engine: Any = client.router.backend()._engine
    executor = engine._worker._executor
    engine._worker._executor = Recorder(executor)
    yield engine._worker._executor
    engine._worker._executor = executor


def prompt_ids(client: Client) -> list[int]:
    messages = ({"role": "user", "content": STORY},)
    return client.router.backend().render(Request(messages=messages))[1]


def defined_tokens(prompt: list[int], logits: list[np.ndarray], settings: dict) -> list[int]:
    """The answer that the settings and the recorded logits define."""
    settings = settings.copy()
    bias = settings.pop("logit_bias", {})
    tokens = list(prompt)
    params = SamplerSettings(bias_ids=list(bias), bias_values=list(bias.values()), **settings)
    for logits_row in logits:
        seen = np.array(tokens) if "repetition_penalty" in settings else None
        row = SampleRow(params, len(tokens), seen)
        tokens.append(numpy_sampler.sample(logits_row[None], [row])[0].token)
    return tokens[len(prompt) :]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_tokens_are_those_that_the_settings_define(
    client: Client, recorder: Recorder, name: str, streamed: bool
) -> None:
    settings = OFF | SETTINGS[name]
    answer = client.chat().send(
        STORY, stream=streamed, max_tokens=24, stop_token_ids=[], **settings
    )
    if streamed:
        assert "".join(answer) == answer.text
    assert len(answer.tokens) == 24
    assert answer.tokens == defined_tokens(prompt_ids(client), recorder.logits, settings)


def test_log_probabilities_are_the_models_own_whatever_the_other_settings(
    client: Client, recorder: Recorder
) -> None:
    strange = OFF | {"temperature": 5, "top_k": 9, "repetition_penalty": 1.9, "logit_bias": {9: 5}}
    for settings in (OFF, strange):
        recorder.logits.clear()
        answer = client.ask(STORY, max_tokens=8, stop_token_ids=[], top_logprobs=4, **settings)
        for entry, logits in zip(answer.logprobs, recorder.logits, strict=True):
            own = logits - logits.max().astype(np.float64)
            own -= np.log(np.exp(own).sum())
            best = np.argsort(-logits, kind="stable")[:4]
            assert entry.logprob == pytest.approx(own[entry.token], abs=1e-5)
            assert [token for token, _, _ in entry.top_logprobs] == best.tolist()
            assert [p for _, _, p in entry.top_logprobs] == pytest.approx(own[best], abs=1e-5)
            decode = client.router.backend()._engine.tokenizer.token_text
            assert [text for _, text, _ in entry.top_logprobs] == [decode(t) for t in best]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_stop_token_ends_the_answer_and_an_empty_list_lets_none(
    client: Client, streamed: bool
) -> None:
    def ask(**settings: Any) -> Any:
        answer = client.chat().send("Hello!", stream=streamed, temperature=0, **settings)
        return answer, str(answer)

    own, text = ask(max_tokens=64)
    assert own.finish_reason == "stop"
    on, _ = ask(max_tokens=len(own.tokens) + 5, stop_token_ids=[])
    assert on.tokens[: len(own.tokens)] == own.tokens
    assert (len(on.tokens), on.finish_reason) == (len(own.tokens) + 5, "length")
    short, shorter = ask(max_tokens=64, stop_token_ids=[own.tokens[2]])
    end = own.tokens.index(own.tokens[2])
    assert (short.tokens, short.finish_reason) == (own.tokens[: end + 1], "stop")
    assert text.startswith(shorter)
    assert len(shorter) < len(text)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_first_of_several_stop_sequences_ends_the_answer(
    client: Client, streamed: bool
) -> None:
    text = client.ask(STORY, temperature=0, max_tokens=60).text
    first, later = text[11:17], text[30:34]
    answer = client.chat().send(
        STORY, stream=streamed, temperature=0, max_tokens=60, stop_sequences=[later, first]
    )
    pieces = "".join(answer) if streamed else answer.text
    assert pieces == answer.text == text[: text.index(first)]
    assert (answer.finish_reason, answer.stop_sequence) == ("stop", first)


def test_echo_and_a_token_to_continue_from_belong_to_the_prompt(client: Client) -> None:
    ids = client.router.backend().render(Request(prompt="Once upon a time"))[1]
    plain = client.raw_complete("Once upon a time", temperature=0, max_tokens=6, top_logprobs=0)
    options = CompletionOptions(continue_from_token_id=ids[-1], echo_prompt=True)
    rest = client.router.backend()._engine.tokenizer.decode(ids[:-1])
    echoed = client.raw_complete(
        rest, temperature=0, max_tokens=6, top_logprobs=0, completion_opts=options
    )
    assert echoed.tokens == plain.tokens
    assert echoed.logprobs == plain.logprobs
    assert echoed.text == "Once upon a time" + plain.text
    assert echoed.usage.prompt_tokens == len(ids)
    assert echoed.usage.completion_tokens == 6


def test_a_local_model_refuses_the_fields_of_a_remote_one(client: Client) -> None:
    for call in (client.ask, client.raw_complete, client.chat().send):
        with pytest.raises(ValidationError, match="has no extra_body: leave it out") as caught:
            call("Hi", extra_body={"a": 1})
        assert caught.value.details["param"] == "extra_body"
    assert client.ask("Hi", extra_body=None, max_tokens=1)
