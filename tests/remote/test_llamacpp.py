"""Models of a real llama.cpp server, with both of its protocols."""

import gc
import math
import threading
from typing import Any

import anthropic
import openai
import pytest
from tests.remote.llama import ALIAS, CONTEXT, HIDDEN, LlamaCpp
from tests.remote.server import PATIENCE

from talu import AnthropicBackend, ModelSpec, OpenAICompatibleBackend
from talu.exceptions import EndpointError
from talu.router import check_endpoint, get_model_ids

QUESTION = "What is the capital of France?"
GREEDY: Any = {"temperature": 0.0, "max_tokens": 12}
ENDLESS = {"ignore_eos": True}  # a field of llama.cpp
MESSAGES: Any = [{"role": "user", "content": QUESTION}]


@pytest.fixture
def client(remote: Any, llama: LlamaCpp) -> Any:
    """A client of the server's model, with OpenAI's protocol."""
    return remote.client_of(
        ModelSpec(f"llamacpp::{ALIAS}", OpenAICompatibleBackend(llama.base_url), name="openai"),
        ModelSpec(ALIAS, AnthropicBackend(llama.url), name="anthropic"),
    )


def bare_chat(llama: LlamaCpp, **options: Any) -> Any:
    """The answer that the bare SDK gets."""
    with openai.OpenAI(base_url=llama.base_url, api_key="none") as sdk:
        return sdk.chat.completions.create(model=ALIAS, messages=MESSAGES, **options)


def bare_message(llama: LlamaCpp) -> Any:
    """The message that the bare SDK gets."""
    with anthropic.Anthropic(base_url=llama.url, api_key="none") as sdk:
        options: Any = {"extra_body": {"temperature": 0.0}}
        return sdk.messages.create(model=ALIAS, max_tokens=12, messages=MESSAGES, **options)


def wait_idle(llama: LlamaCpp) -> None:
    """Wait until the server works on nothing."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if llama.busy() == 0:
            return
        pause.wait(0.01)
    raise AssertionError("the server still works")


def test_a_greedy_answer_is_that_of_the_bare_sdk(remote: Any, client: Any, llama: LlamaCpp) -> None:
    bare = bare_chat(llama, **GREEDY)
    answer = remote.run(client.ask(QUESTION, **GREEDY))
    assert answer == bare.choices[0].message.content
    assert str(answer.finish_reason) == bare.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens == bare.usage.prompt_tokens
    assert answer.usage.completion_tokens == bare.usage.completion_tokens == 12
    assert answer.notes == ()


def test_a_greedy_message_is_that_of_the_bare_sdk(
    remote: Any, client: Any, llama: LlamaCpp
) -> None:
    bare = bare_message(llama)
    answer = remote.run(client.ask(QUESTION, model="anthropic", **GREEDY))
    assert answer == bare.content[0].text
    assert (str(answer.finish_reason), bare.stop_reason) == ("length", "max_tokens")
    read = (bare.usage.cache_read_input_tokens or 0) + bare.usage.input_tokens
    assert answer.usage.prompt_tokens == read
    assert answer.usage.completion_tokens == bare.usage.output_tokens == 12


@pytest.mark.parametrize("model", ["openai", "anthropic"])
def test_a_stream_has_a_piece_for_each_token(remote: Any, client: Any, model: str) -> None:
    stream = remote.run(client.chat(model=model)(QUESTION, **GREEDY))
    pieces = remote.read(stream)
    assert (len(pieces) > 8, "".join(pieces)) == (True, stream.text)
    assert stream.timings.time_to_first_token_ms > 0


@pytest.mark.parametrize("model", ["openai", "anthropic"])
def test_a_conversation_goes_on(remote: Any, client: Any, model: str) -> None:
    chat = client.chat("Answer in one word.", model=model)
    remote.run(chat.send("My name is Ada.", **GREEDY))
    first = remote.run(chat.send("Say hello.", **GREEDY))
    assert (len(chat.items), first.usage.prompt_tokens > 40) == (5, True)


@pytest.mark.parametrize("model", ["openai", "anthropic"])
def test_a_stop_sequence_ends_the_answer(remote: Any, client: Any, model: str) -> None:
    whole = remote.run(client.ask(QUESTION, model=model, temperature=0.0, max_tokens=30))
    word = whole.text.split()[3]
    answer = remote.run(
        client.ask(QUESTION, model=model, stop_sequences=[word], temperature=0.0, max_tokens=30)
    )
    assert str(answer.finish_reason) == "stop"
    assert answer.text == whole.text[: whole.text.index(word)]


def test_logprobs_are_those_of_the_bare_sdk(remote: Any, client: Any, llama: LlamaCpp) -> None:
    bare = bare_chat(llama, logprobs=True, top_logprobs=3, **GREEDY)
    answer = remote.run(client.ask(QUESTION, logprobs=True, top_logprobs=3, **GREEDY))
    expected = bare.choices[0].logprobs.content
    assert [one.token_str for one in answer.logprobs] == [one.token for one in expected]
    for ours, theirs in zip(answer.logprobs, expected, strict=True):
        assert math.isclose(ours.logprob, theirs.logprob, abs_tol=0.02)
        assert len(ours.top_logprobs) == 3
        assert ours.top_logprobs[0][1] == theirs.top_logprobs[0].token


def test_a_raw_completion_continues_the_text(remote: Any, client: Any, llama: LlamaCpp) -> None:
    with openai.OpenAI(base_url=llama.base_url, api_key="none") as sdk:
        bare = sdk.completions.create(model=ALIAS, prompt="Once upon a time", **GREEDY)
    answer = remote.run(
        client.raw_complete("Once upon a time", logprobs=True, top_logprobs=2, **GREEDY)
    )
    assert answer == bare.choices[0].text
    assert len(answer.logprobs) == answer.usage.completion_tokens == 12


def test_embeddings_are_those_of_the_bare_sdk(remote: Any, client: Any, llama: LlamaCpp) -> None:
    texts = ["a cat", "a kitten", "an airport"]
    with openai.OpenAI(base_url=llama.base_url, api_key="none") as sdk:
        bare = [one.embedding for one in sdk.embeddings.create(model=ALIAS, input=texts).data]
    vectors = remote.embed(client, texts)
    assert [len(vector) for vector in vectors] == [HIDDEN] * 3
    for ours, theirs in zip(vectors, bare, strict=True):
        assert math.isclose(sum(a * b for a, b in zip(ours, theirs, strict=True)), 1, abs_tol=1e-3)
    cat, kitten, airport = vectors
    near, far = (sum(a * b for a, b in zip(cat, v, strict=True)) for v in (kitten, airport))
    assert near > far


@pytest.mark.parametrize("model", ["openai", "anthropic"])
def test_a_prompt_that_is_too_long_is_named(remote: Any, client: Any, model: str) -> None:
    with pytest.raises(EndpointError) as caught:
        remote.run(client.ask("word " * (CONTEXT + 10), model=model))
    assert (caught.value.code, caught.value.status) == ("GENERATION_CONTEXT_OVERFLOW", 400)


@pytest.mark.parametrize("model", ["openai", "anthropic"])
def test_the_server_stops_working_on_a_cancelled_answer(
    remote: Any, client: Any, llama: LlamaCpp, model: str
) -> None:
    wait_idle(llama)
    before = llama.count("tokens_predicted_total")
    chat = client.chat(model=model)
    stream = remote.run(chat("Tell me a long story.", max_tokens=400, extra_body=ENDLESS))
    assert len(remote.read_some(stream, 3)) == 3
    del stream
    gc.collect()
    remote.spin()
    wait_idle(llama)
    assert llama.count("tokens_predicted_total") - before < 300


def test_many_streams_at_once_lose_nothing(awaiting: Any, llama: LlamaCpp) -> None:
    backend = OpenAICompatibleBackend(llama.base_url)
    client = awaiting.client_of(ModelSpec(f"llamacpp::{ALIAS}", backend))
    questions = [QUESTION] * 12
    answers = awaiting.run(client.ask(questions, **GREEDY))
    assert [answer.usage.completion_tokens for answer in answers] == [12] * 12


def test_the_server_is_known_by_its_list_of_models(llama: LlamaCpp) -> None:
    assert (check_endpoint(llama.base_url), get_model_ids(llama.base_url)) == (True, [ALIAS])


@pytest.mark.parametrize("settings", [{"logprobs": True}, {"logprobs": True, "top_logprobs": 0}])
def test_logprobs_without_alternatives_come_from_chats_and_raw_completions(
    remote: Any, client: Any, settings: dict[str, Any]
) -> None:
    few = {"temperature": 0, "max_tokens": 3}
    for call in (client.ask, client.raw_complete):
        answer = remote.run(call("The capital of France is", **few, **settings))
        assert len(answer.logprobs) == 3
        assert {one.top_logprobs for one in answer.logprobs} == {None}
        assert answer.notes == ()
