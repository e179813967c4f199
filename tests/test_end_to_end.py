"""The public API on the model in the package: real tokens through every layer."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from talu import AsyncClient, Client, CompletionOptions, PromptTemplate
from talu.types import Request

STORY = "Tell me a story about a fox."
QUESTIONS = [f"What is {a} + {b}?" for a in (1, 2, 4, 6, 7, 8, 9, 11) for b in (3, 5)]


@pytest.fixture(scope="module")
def client():
    with Client("talu/pocket") as client:
        yield client


def test_the_same_greedy_answer_comes_streamed_and_whole(client: Client) -> None:
    whole = client.ask(STORY, temperature=0, max_tokens=40)
    stream = client.chat()(STORY, temperature=0, max_tokens=40)
    pieces = list(stream)
    assert len(pieces) > 10
    assert "".join(pieces) == whole.text == stream.text
    assert (stream.tokens, stream.finish_reason) == (whole.tokens, whole.finish_reason)


def test_a_seed_repeats_an_answer_and_another_seed_changes_it(client: Client) -> None:
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_tokens": 30}
    first, again, other = (client.ask(STORY, seed=seed, **settings) for seed in (1, 1, 2))
    assert first.tokens == again.tokens
    assert first.tokens != other.tokens


def test_counts_and_times_add_up(client: Client) -> None:
    answer = client.ask(STORY, max_tokens=8, stop_token_ids=[])
    usage, timings = answer.usage, answer.timings
    assert (usage.completion_tokens, answer.finish_reason) == (8, "length")
    assert usage.total_tokens == usage.prompt_tokens + 8
    assert len(answer.tokens) == 8
    assert 0 < timings.time_to_first_token_ms <= timings.total_ms
    assert timings.tokens_per_second > 0
    assert answer.model == "talu/pocket"


def test_the_prompt_is_what_the_template_made_and_what_was_counted(client: Client) -> None:
    chat = client.chat(system="You are a pirate.")
    counted, preview = chat.count_tokens("Hello!"), chat.fork().append("user", "Hello!")
    answer = chat.send("Hello!", max_tokens=4)
    assert answer.usage.prompt_tokens == counted
    assert answer.prompt == preview.preview_prompt()
    assert "You are a pirate." in answer.prompt


def test_the_template_of_a_chat_or_a_call_replaces_the_models(client: Client) -> None:
    raw = client.chat(system="Once", chat_template=PromptTemplate.RAW)
    assert raw.send("upon", max_tokens=1).prompt == "Once\n\nupon"
    settings = {"max_tokens": 1, "chat_template": "{{ word }}!", "extra_context": {"word": "Hi"}}
    assert raw.send("a time", **settings).prompt == "Hi!"
    assert "<|im_start|>" in client.chat().send("Hi", max_tokens=1).prompt


def test_a_stop_sequence_ends_the_answer_and_is_not_part_of_it(client: Client) -> None:
    text = client.ask(STORY, temperature=0, max_tokens=40).text
    stop = text[20:26]
    answer = client.chat().send(STORY, temperature=0, max_tokens=40, stop_sequences=[stop])
    assert answer.text == text[: text.index(stop)]
    assert (answer.finish_reason, answer.stop_sequence) == ("stop", stop)


def test_log_probabilities_come_with_every_token_when_asked_for(client: Client) -> None:
    answer = client.ask(STORY, temperature=0, max_tokens=5, top_logprobs=2)
    assert [entry.token for entry in answer.logprobs] == answer.tokens
    for entry in answer.logprobs:
        assert entry.logprob <= 0
        assert entry.top_logprobs[0][0] == entry.token  # greedy takes the best
        assert len(entry.top_logprobs) == 2
    assert client.ask(STORY, max_tokens=2).logprobs is None


def test_a_bias_bans_a_token(client: Client) -> None:
    first = client.ask(STORY, temperature=0, max_tokens=1).tokens[0]
    other = client.ask(STORY, temperature=0, max_tokens=1, logit_bias={first: -100}).tokens[0]
    assert other != first


def test_every_setting_at_its_limit_gives_an_answer(client: Client) -> None:
    for settings in (
        {"temperature": 1000, "repetition_penalty": 1000, "logit_bias": {5: 1_000_000}},
        {"temperature": 1e-300, "repetition_penalty": 0.001, "logit_bias": {5: -1_000_000}},
        {"top_k": 2**31 - 1, "top_p": 1e-300, "min_p": 1, "max_tokens": 2**31 - 1},
        {"top_k": 1, "top_logprobs": 20, "seed": 2**64 - 1},
    ):
        answer = client.ask(STORY, **({"max_tokens": 3} | settings))
        assert answer.usage.completion_tokens > 0


def test_a_raw_completion_takes_text_or_token_ids(client: Client) -> None:
    settings = {"temperature": 0, "max_tokens": 6}
    by_text = client.raw_complete("Once upon a time", **settings)
    ids = client.router.backend().render(Request(prompt="Once upon a time"))[1]
    by_ids = client.raw_complete("", completion_opts=CompletionOptions(ids), **settings)
    assert by_ids.tokens == by_text.tokens
    assert by_text.usage.prompt_tokens == len(ids)
    options = CompletionOptions(ids[:-1], continue_from_token_id=ids[-1], echo_prompt=True)
    echoed = client.raw_complete("", completion_opts=options, **settings)
    assert echoed.text == "Once upon a time" + by_text.text


def test_a_second_turn_reads_the_first_from_the_cache(client: Client) -> None:
    chat = client.chat(system="You are a friendly assistant.")
    first = chat.send(STORY, max_tokens=60)
    second = chat.send("Another one.", max_tokens=4)
    known = first.usage.prompt_tokens
    assert second.usage.cached_tokens >= known - 16  # whole blocks


def test_two_chats_with_different_personas_do_not_mix(client: Client) -> None:
    pirate, poet = client.chat(system="You are a pirate."), client.chat(system="You are a poet.")
    answers = [chat.send("Hello!", temperature=0, max_tokens=20) for chat in (pirate, poet)]
    alone = [
        client.chat(system=chat.system).send("Hello!", temperature=0, max_tokens=20)
        for chat in (pirate, poet)
    ]
    assert answers == alone
    assert answers[0] != answers[1]


def test_threads_with_separate_chats_get_the_answers_of_a_sequential_run(client) -> None:
    def answers(question: str) -> list[list[int]]:
        chat = client.chat()
        questions = (question, "And twice that?")
        return [chat.send(each, temperature=0, max_tokens=24).tokens for each in questions]

    alone = [answers(question) for question in QUESTIONS]
    start = threading.Barrier(len(QUESTIONS))

    def together(question: str) -> list[list[int]]:
        start.wait(30)
        return answers(question)

    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        assert list(pool.map(together, QUESTIONS)) == alone
    assert len(QUESTIONS) == 16


def test_tasks_get_the_answers_of_a_sequential_run(client) -> None:
    alone = [client.ask(q, temperature=0, max_tokens=24).tokens for q in QUESTIONS]

    async def main() -> list[list[int]]:
        async with AsyncClient("talu/pocket") as others:
            asks = [others.ask(q, temperature=0, max_tokens=24) for q in QUESTIONS]
            return [answer.tokens for answer in await asyncio.gather(*asks)]

    assert asyncio.run(main()) == alone


def test_leaving_a_stream_keeps_the_text_and_the_client_usable(client: Client) -> None:
    chat = client.chat()
    stream = chat(STORY, stop_token_ids=[], max_tokens=500)
    read = []
    for piece in stream:
        read.append(piece)
        if len(read) == 5:
            break
    assert chat.items.last.text == stream.text == "".join(read)
    assert stream.finish_reason == "cancelled"
    assert chat.send("Hello!", max_tokens=4).finish_reason in ("stop", "length")


def test_a_stream_that_is_left_early_reports_its_usage(client: Client) -> None:
    whole = client.ask(STORY, stop_token_ids=[], max_tokens=5)
    stream = client.chat()(STORY, stop_token_ids=[], max_tokens=500)
    for _ in stream:
        break
    assert stream.usage.prompt_tokens == whole.usage.prompt_tokens
    assert len(stream.tokens) <= stream.usage.completion_tokens < 500
    assert stream.timings.time_to_first_token_ms > 0
    assert stream.prompt == whole.prompt
    assert stream.to_dict()["finish_reason"] == "cancelled"


def test_cancelling_while_another_thread_reads_ends_the_reading(client: Client) -> None:
    stream = client.chat()(STORY, stop_token_ids=[], max_tokens=900)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list, stream)
        stream.cancel()
        pieces = reading.result(timeout=30)
    assert len(pieces) < 900
    assert stream.finish_reason == "cancelled"


def test_a_cancelled_task_leaves_the_client_usable() -> None:
    async def main() -> None:
        async with AsyncClient("talu/pocket") as client:
            seen = asyncio.Event()
            ask = client.chat().send(
                STORY, stop_token_ids=[], max_tokens=900, on_token=lambda piece: seen.set()
            )
            task = asyncio.create_task(ask)
            await seen.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.ask("Hello!", max_tokens=3)).usage.completion_tokens <= 3

    asyncio.run(main())


def test_closing_a_client_ends_its_answers_and_not_those_of_another() -> None:
    with Client("talu/pocket") as stays:
        goes = Client("talu/pocket")
        one, other = (c.chat()(STORY, stop_token_ids=[], max_tokens=300) for c in (goes, stays))
        pieces = iter(one)
        next(pieces)
        goes.close()
        assert list(pieces)[-1].finish_reason == "cancelled"
        assert one.usage.completion_tokens < 300
        assert len(other.text) > 0
        assert other.finish_reason == "length"


def test_opening_and_closing_a_model_leaves_no_thread_file_or_mapping() -> None:
    def held() -> tuple[int, int, int]:
        maps = Path("/proc/self/maps").read_text().count("talu/models")
        return threading.active_count(), len(os.listdir("/proc/self/fd")), maps

    def system_threads() -> int:
        return len(os.listdir("/proc/self/task"))

    def cycle() -> None:
        with Client("talu/pocket", use_mmap=False) as client:  # no other test has this engine open
            chat = client.chat()
            chat.send("Hello!", max_tokens=3)
            for _ in chat(STORY, max_tokens=50):
                break

    for _ in range(3):
        cycle()
    before, threads = held(), system_threads()
    for _ in range(12):
        cycle()
    assert held() == before
    assert system_threads() < threads + 4  # one that Python has joined is there for a moment more


def test_an_offline_chat_on_a_local_model_answers(client: Client) -> None:
    assert client.chat(offline=True).send("Hello!", max_tokens=2).tokens
