"""OpenAI's completions, embeddings and the paths of tokens, through the official SDK."""

import asyncio
import base64
import struct
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from tests.server.compatibility import shows
from tests.server.samples import openai_client

from talu import Client

MODEL = "talu/pocket"
PROMPT = "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n"


def complete(server: Any, **fields: Any) -> Any:
    """A completion of talu/pocket, through the SDK; the chunks of a stream."""
    given = {"model": MODEL, "prompt": PROMPT, "temperature": 0, **fields}
    with openai_client(server) as client:
        answer = client.completions.create(**given)
        return list(answer) if given.get("stream") else answer


def embed(server: Any, **fields: Any) -> Any:
    with openai_client(server) as client:
        return client.embeddings.create(**{"model": MODEL, "input": ["one", "two"], **fields})


def post(server: Any, path: str, **body: Any) -> httpx2.Response:
    return httpx2.post(server.url + path, json=body)


@pytest.fixture(scope="module")
def local() -> Any:
    with Client(MODEL) as client:
        yield client


@shows("/v1/completions", "whole answers")
def test_a_text_is_continued(pocket) -> None:
    answer = complete(pocket)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("2 + 2 = 4.", "stop")
    assert answer.object == "text_completion"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@shows("/v1/completions", "streams")
def test_the_pieces_of_a_stream_are_the_whole_completion(pocket) -> None:
    chunks = complete(pocket, stream=True, stream_options={"include_usage": True})
    assert "".join(c.choices[0].text for c in chunks if c.choices) == "2 + 2 = 4."
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens > 0


@shows("/v1/completions", "the async SDK")
def test_the_async_sdk_gets_completions_and_streams(pocket) -> None:
    async def main() -> list[str]:
        async with AsyncOpenAI(base_url=f"{pocket.url}/v1", api_key="none") as client:
            fields: Any = {"model": MODEL, "prompt": PROMPT, "temperature": 0}
            whole = await client.completions.create(**fields)
            chunks = await client.completions.create(**fields, stream=True)
            streamed = [chunk.choices[0].text async for chunk in chunks]
            vectors = await client.embeddings.create(model=MODEL, input="one")
            assert len(vectors.data) == 1
            return [whole.choices[0].text, "".join(streamed)]

    assert asyncio.run(main()) == ["2 + 2 = 4."] * 2


@shows("/v1/completions", "limits of tokens")
def test_without_a_limit_a_completion_has_sixteen_tokens(pocket) -> None:
    answer = complete(pocket, prompt="Once upon a time", extra_body={"stop_token_ids": []})
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (16, "length")


def test_token_ids_are_continued_like_their_text(pocket, local) -> None:
    ids = local.tokenize(PROMPT)
    assert complete(pocket, prompt=ids).choices[0].text == "2 + 2 = 4."
    both = complete(pocket, prompt=[ids, ids]).choices
    assert [choice.text for choice in both] == ["2 + 2 = 4."] * 2


@shows("/v1/completions", "several answers")
def test_several_prompts_with_several_choices_are_in_order(pocket) -> None:
    prompts = [PROMPT, PROMPT.replace("2+2", "3+3")]
    answer = complete(pocket, prompt=prompts, n=2)
    texts = ["2 + 2 = 4.", "2 + 2 = 4.", "3 + 3 = 6.", "3 + 3 = 6."]
    assert [choice.text for choice in answer.choices] == texts
    alone = complete(pocket)
    assert answer.usage.prompt_tokens == 2 * alone.usage.prompt_tokens
    assert answer.usage.completion_tokens == 4 * alone.usage.completion_tokens
    streamed = [""] * 4
    for chunk in complete(pocket, prompt=prompts, n=2, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == texts


def test_an_echo_is_the_prompt_before_the_answer(pocket) -> None:
    text = complete(pocket, prompt="Once upon a time", echo=True).choices[0].text
    assert text.startswith("Once upon a time")
    assert len(text) > len("Once upon a time")


@shows("/v1/completions", "log-probabilities")
def test_log_probabilities_have_the_form_of_completions(pocket) -> None:
    answer = complete(pocket, logprobs=2)
    found = answer.choices[0].logprobs
    assert len(found.tokens) == len(found.token_logprobs) == answer.usage.completion_tokens
    assert found.text_offset[:3] == [0, 1, 3]
    assert [len(top) for top in found.top_logprobs][:2] == [2, 2]
    parts = [chunk.choices[0].logprobs for chunk in complete(pocket, logprobs=2, stream=True)]
    assert [t for part in parts for t in part.tokens] == found.tokens
    assert [o for part in parts for o in part.text_offset] == found.text_offset


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, None),
        ({"prompt": [10**7]}, "prompt"),
        ({"prompt": ["x"] * 129}, "prompt"),
        ({"prompt": "x", "n": 129}, "n"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True, "logprobs": 1}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"stop": ["x"] * 65}, "stop"),
        ({"extra_body": {"messages": []}}, "messages"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_completion_does_not_support_is_named(
    pocket, fields: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        complete(pocket, **fields)
    assert wrong.value.param == param


def test_embeddings_are_those_of_the_library_in_both_encodings(pocket, local) -> None:
    expected = local.embed_batch(["one", "two"])
    as_floats = embed(pocket, encoding_format="float")
    by_default = embed(pocket)  # the SDK asks for base64, and decodes it
    for answer in (as_floats, by_default):
        for item, vector in zip(answer.data, expected, strict=True):
            assert item.embedding == pytest.approx(vector, abs=1e-7)
    assert [item.index for item in as_floats.data] == [0, 1]
    assert as_floats.usage.prompt_tokens == sum(map(local.count_tokens, ["one", "two"]))


def test_base64_has_32_bit_floats_with_the_lowest_byte_first(pocket, local) -> None:
    answer = post(pocket, "/v1/embeddings", model=MODEL, input="one", encoding_format="base64")
    data = base64.b64decode(answer.json()["data"][0]["embedding"])
    assert struct.unpack(f"<{len(data) // 4}f", data) == pytest.approx(local.embed("one"))


def test_a_text_that_is_cut_is_named_in_the_answer(pocket) -> None:
    long = "word " * 3_000
    answer = embed(pocket, input=["one", long], extra_body={"truncate": True})
    assert answer.talu["truncated"] == [1]
    with pytest.raises(openai.BadRequestError):
        embed(pocket, input=["one", long])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [1, 2]}, "input[0]"),
        ({"input": ["x"] * 2_049}, "input"),
        ({"dimensions": 3}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"extra_body": {"prompt_name": "no such"}}, "prompt_name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_embeddings_do_not_support_is_named(
    pocket, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        embed(pocket, **fields)
    assert wrong.value.param == param


def test_a_model_without_embeddings_says_so(scripted) -> None:
    _, server = scripted()
    with pytest.raises(openai.BadRequestError) as wrong:
        embed(server, model="script")
    assert wrong.value.code == "GENERATION_UNSUPPORTED"


@pytest.mark.parametrize("field", ["prompt", "content"])
def test_texts_are_tokenized_and_joined_again(pocket, local, field: str) -> None:
    found = post(pocket, "/tokenize", model=MODEL, **{field: "What is 2+2?"}).json()
    assert found["tokens"] == local.tokenize("What is 2+2?")
    assert (found["count"], found["max_model_len"]) == (len(found["tokens"]), 1024)
    assert post(pocket, "/detokenize", tokens=found["tokens"]).json()["prompt"] == "What is 2+2?"


def test_a_conversation_is_rendered_with_its_tools(pocket) -> None:
    messages = [{"role": "user", "content": "What is 2+2?"}]
    plain = post(pocket, "/apply-template", messages=messages).json()
    assert plain["prompt"] == PROMPT
    tool = {"type": "function", "function": {"name": "weather"}}
    shown = post(pocket, "/apply-template", messages=messages, tools=[tool]).json()
    assert '"weather"' in shown["prompt"]
    assert shown["count"] > plain["count"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "content": "x"}, "prompt"),
        ("/tokenize", {"prompt": 3}, "prompt"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [10**8]}, "tokens"),
        ("/apply-template", {"messages": []}, "messages"),
        ("/apply-template", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ],
)
def test_what_the_paths_of_tokens_do_not_take_is_named(
    pocket, path: str, body: dict[str, Any], param: str
) -> None:
    answer = post(pocket, path, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
