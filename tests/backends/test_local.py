import asyncio
import gc
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest

from talu.backends.local import LocalModel
from talu.config import GenerationConfig
from talu.exceptions import (
    EmptyPromptError,
    GenerationError,
    ModelNotFoundError,
    StateError,
    TemplateError,
    ValidationError,
)
from talu.protocols import Generation
from talu.sources.resolve import BUNDLED, resolve
from talu.template.prompt_template import PromptTemplate
from talu.types import Done, Event, FinishReason, LocalBackend, Request, TextDelta

ASK = ({"role": "user", "content": "What is 2+2?"},)
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def start(model: LocalModel, request: Request) -> Generation:
    generation = model.generate(request)
    generation.start()
    return generation


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    with closing(LocalModel(BUNDLED)) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(resolve(BUNDLED).path, tmp_path / "model"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def ask(**settings: Any) -> Request:
    settings = {"max_tokens": 8, "temperature": 0.0} | settings
    return Request(messages=ASK, config=GenerationConfig(**settings))


def raw(prompt: str | None = "Hello", **fields: Any) -> Request:
    return Request(prompt=prompt, config=GenerationConfig(max_tokens=4, temperature=0.0), **fields)


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def tokens_of(events: list[Event]) -> list[int]:
    return [t for event in events if isinstance(event, TextDelta) for t in event.tokens]


def done_of(events: list[Event]) -> Done:
    assert isinstance(events[-1], Done)
    return events[-1]


async def collect(model: LocalModel, request: Request) -> list[Event]:
    async with aclosing(model.agenerate(request)) as events:
        await events.start()
        return [event async for event in events]


# Answering a request.


def test_a_chat_is_answered_and_the_counts_add_up(model: LocalModel) -> None:
    events = list(start(model, ask(stop_token_ids=[])))
    done = done_of(events)
    text, ids = model.render(ask())
    assert done.prompt == text
    assert done.model == model.model == BUNDLED
    assert done.usage.prompt_tokens == len(ids)
    assert done.usage.completion_tokens == len(tokens_of(events)) == 8
    assert done.finish_reason is FinishReason.LENGTH
    assert done.timings.time_to_first_token_ms > 0


def test_async_events_equal_sync_events(model: LocalModel) -> None:
    request = ask(temperature=1.0, seed=3, logprobs=True)
    plain, awaited = list(start(model, request)), asyncio.run(collect(model, request))
    assert awaited[:-1] == plain[:-1]
    assert done_of(awaited).finish_reason == done_of(plain).finish_reason


def test_the_end_token_ends_the_answer(model: LocalModel) -> None:
    events = list(start(model, ask(max_tokens=200)))
    assert done_of(events).finish_reason is FinishReason.STOP
    assert "<|im_end|>" not in text_of(events)


def test_settings_of_the_model_override_the_defaults_of_the_library(folder: Path) -> None:
    edit(folder / "generation_config.json", do_sample=False, max_new_tokens=3)
    greedy = ask(stop_token_ids=[])
    with closing(LocalModel(str(folder))) as model:
        own = list(start(model, Request(messages=ASK)))
        assert len(tokens_of(own)) == 3
        assert tokens_of(own) == tokens_of(list(start(model, greedy)))[:3]


def test_without_a_seed_every_generation_draws_a_new_one(model: LocalModel) -> None:
    request = ask(max_tokens=30, temperature=5.0, top_k=0, top_p=1.0)
    assert len({text_of(list(start(model, request))) for _ in range(3)}) == 3


def test_a_seed_makes_the_text_repeatable(model: LocalModel) -> None:
    request = ask(max_tokens=30, temperature=5.0, top_k=0, top_p=1.0, seed=11)
    assert len({text_of(list(start(model, request))) for _ in range(3)}) == 1


def test_a_stop_sequence_is_reported_and_not_part_of_the_text(model: LocalModel) -> None:
    text = text_of(list(start(model, ask())))
    stop = text[1:3]
    events = list(start(model, ask(stop_sequences=[stop])))
    assert text_of(events) == text[: text.index(stop)]
    assert done_of(events).stop_sequence == stop


def test_logprobs_are_reported_for_every_token(model: LocalModel) -> None:
    events = list(start(model, ask(top_logprobs=3)))
    logprobs = [each for e in events if isinstance(e, TextDelta) for each in e.logprobs]
    assert [each.token for each in logprobs] == tokens_of(events)
    assert all(each.top_logprobs and len(each.top_logprobs) == 3 for each in logprobs)


def test_the_second_turn_finds_the_first_in_the_cache(model: LocalModel) -> None:
    story = {"role": "user", "content": "Tell me a long story about the sea and a boat." * 4}
    config = GenerationConfig(max_tokens=40, temperature=0.0)
    answer = text_of(list(start(model, Request(messages=(story,), config=config))))
    turn = (story, {"role": "assistant", "content": answer}, {"role": "user", "content": "Why?"})
    usage = done_of(list(start(model, Request(messages=turn, config=config)))).usage
    first = len(model.render(Request(messages=(story,)))[1])
    assert first - 16 < usage.cached_tokens < usage.prompt_tokens


def test_a_template_of_the_request_replaces_the_models(model: LocalModel) -> None:
    request = Request(messages=ASK, chat_template="Q: {{ messages[0].content }} {{ mood }}\nA:")
    assert model.render(request)[0] == "Q: What is 2+2? \nA:"
    config = GenerationConfig(extra_context={"mood": "(calmly)"})
    with_mood = Request(messages=ASK, chat_template=request.chat_template, config=config)
    assert model.render(with_mood)[0] == "Q: What is 2+2? (calmly)\nA:"


def test_tools_that_the_template_does_not_show_are_described_and_the_answer_says_so(
    model: LocalModel,
) -> None:
    blind = Request(messages=ASK, tools=(TOOL,), chat_template="{{ messages[0].content }}")
    assert '"name": "add"' in model.render(blind)[0]
    assert any("does not show tools" in note for note in done_of(list(start(model, blind))).notes)


def test_tools_need_a_chat_template(model: LocalModel) -> None:
    raw_text = Request(messages=ASK, tools=(TOOL,), chat_template=PromptTemplate.RAW.source)
    with pytest.raises(ValidationError, match="no place for tools") as refused:
        model.render(raw_text)
    assert refused.value.details["param"] == "tools"


def test_without_a_template_the_tokenizer_adds_its_special_tokens(folder: Path) -> None:
    post = {
        "type": "Sequence",
        "processors": [
            {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                ],
                "pair": [
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"Sequence": {"id": "B", "type_id": 0}},
                ],
                "special_tokens": {
                    "<|endoftext|>": {
                        "id": "<|endoftext|>",
                        "ids": [0],
                        "tokens": ["<|endoftext|>"],
                    }
                },
            }
        ],
    }
    edit(folder / "tokenizer.json", post_processor=post)
    with closing(LocalModel(str(folder))) as opened:
        ids = opened.render(Request(messages=ASK, chat_template=PromptTemplate.RAW.source))[1]
        assert ids == [0, *opened.render(raw(ASK[0]["content"]))[1][1:]]
        assert opened.render(Request(messages=ASK))[1][0] != 0


def test_the_prompt_ends_with_the_beginning_of_the_answer_unless_told_otherwise(
    model: LocalModel,
) -> None:
    opened = model.render(Request(messages=ASK))[0]
    closed = model.render(Request(messages=ASK, add_generation_prompt=False))[0]
    assert opened.removeprefix(closed) == "<|im_start|>assistant\n"


def test_a_value_that_is_not_a_boolean_is_refused_with_the_name_of_the_option() -> None:
    wrong: Any = "no"
    with pytest.raises(ValidationError, match="use_mmap must be True or False, got 'no'"):
        LocalModel("talu/pocket", LocalBackend(use_mmap=wrong))
    with pytest.raises(ValidationError, match="offline must be True or False, got 'no'"):
        LocalModel("talu/pocket", offline=wrong)


def test_an_empty_template_is_a_template(model: LocalModel) -> None:
    with pytest.raises(EmptyPromptError):
        next(start(model, Request(messages=ASK, chat_template="")))


def test_tools_are_shown_to_the_model(model: LocalModel) -> None:
    shown = Request(messages=ASK, tools=(TOOL,), chat_template="{{ tools | tojson }}")
    assert '"add"' in model.render(shown)[0]


# Raw prompts.


def test_a_raw_prompt_is_sent_unchanged(model: LocalModel) -> None:
    text, ids = model.render(raw("Hello"))
    assert text == "Hello"
    done = done_of(list(start(model, raw("Hello"))))
    assert (done.prompt, done.usage.prompt_tokens) == ("Hello", len(ids))


def test_token_ids_replace_the_tokenization(model: LocalModel) -> None:
    ids = model.render(raw("Hello"))[1]
    by_ids = list(start(model, raw("ignored", token_ids=tuple(ids))))
    assert tokens_of(by_ids) == tokens_of(list(start(model, raw("Hello"))))
    assert done_of(by_ids).prompt == "Hello"


def test_a_token_to_continue_from_ends_the_prompt(model: LocalModel) -> None:
    ids = model.render(raw("Hello there"))[1]
    request = raw(None, token_ids=tuple(ids[:-1]), continue_from_token_id=ids[-1])
    assert model.render(request) == ("Hello there", ids)


def test_an_echoed_prompt_starts_the_text(model: LocalModel) -> None:
    plain, echoed = list(start(model, raw())), list(start(model, raw(echo_prompt=True)))
    assert text_of(echoed) == "Hello" + text_of(plain)
    assert done_of(echoed).usage.completion_tokens == done_of(plain).usage.completion_tokens


# Refused requests.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu_layers": 1}, "runs on the CPU only"),
        ({"gpu_layers": -2}, "must be -1"),
        ({"gpu_layers": True}, "whole number"),
        ({"num_threads": -1}, "must be 0"),
        ({"num_threads": 1025}, "to 1024"),
        ({"num_threads": 2.0}, "whole number"),
        ({"num_threads": 10**5000}, "a whole number of 16610 bits must be 0"),
        ({"weight_format": "q5"}, "must be one of"),
        ({"weight_format": "Q4_K_L"}, r"must be one of .*; did you mean 'q4_k_\w'\?"),
        ({"kv_dtype": "i8"}, "must be one of"),
        ({"weight_format": ["auto"]}, "must be one of"),
        ({"speculative": "mtp"}, "supports no model that has them; use 'ngram'"),
        ({"speculative": "N-gram"}, r"None or one of \('ngram',\); did you mean 'ngram'\?"),
        ({"speculative": True}, "must be None or one of"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        LocalModel(BUNDLED, LocalBackend(**options))
    assert caught.value.details["param"] in options


@pytest.mark.parametrize("gpu_layers", [-1, 0])
def test_a_model_without_gpu_layers_runs_on_the_cpu(gpu_layers: int) -> None:
    with closing(LocalModel(BUNDLED, LocalBackend(gpu_layers=gpu_layers))) as model:
        assert model.info.device == "cpu"


def test_a_missing_model_is_not_found() -> None:
    with pytest.raises(ModelNotFoundError):
        LocalModel("./no/such/model")


@pytest.mark.parametrize("request_", [raw(None), raw(""), raw("x", token_ids=())])
def test_an_empty_prompt_is_refused(model: LocalModel, request_: Request) -> None:
    with pytest.raises(EmptyPromptError):
        next(start(model, request_))


def test_an_empty_list_of_messages_is_refused(model: LocalModel) -> None:
    with pytest.raises(EmptyPromptError):
        next(start(model, Request(messages=())))


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (raw(token_ids=(1, 99_999)), "token_ids"),
        (raw(token_ids=(-1,)), "token_ids"),
        (raw(continue_from_token_id=99_999), "continue_from_token_id"),
        (raw(tools=(TOOL,)), "tools"),
        (Request(messages=ASK, token_ids=(1,)), "token_ids"),
        (Request(messages=ASK, continue_from_token_id=1), "continue_from_token_id"),
        (ask(logit_bias={99_999: 1.0}), "logit_bias"),
        (ask(stop_token_ids=[99_999]), "stop_token_ids"),
    ],
)
def test_an_unsupported_request_is_refused_by_name(
    model: LocalModel, request_: Request, name: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        next(start(model, request_))
    assert caught.value.details["param"] == name


def test_a_prompt_beyond_the_context_names_both_counts(model: LocalModel) -> None:
    long = Request(prompt="word " * 1200)
    count = len(model.render(long)[1])
    with pytest.raises(GenerationError, match=rf"{count} tokens.*{model.max_context_length}"):
        next(start(model, long))


def test_a_model_without_a_template_answers_raw_prompts_only(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", chat_template=None)
    with closing(LocalModel(str(folder))) as model:
        with pytest.raises(TemplateError, match="no chat template"):
            next(start(model, ask()))
        assert len(tokens_of(list(start(model, raw())))) > 0


# Cancelling and closing.


def endless() -> Request:
    return ask(max_tokens=900, stop_token_ids=[], temperature=1.0)


def test_a_closed_model_refuses_requests(folder: Path) -> None:
    model = LocalModel(str(folder))
    model.close()
    model.close()
    with pytest.raises(StateError, match="closed"):
        next(start(model, ask()))


def test_closing_a_model_ends_only_its_own_generations(folder: Path) -> None:
    model, other = LocalModel(str(folder)), LocalModel(str(folder))
    mine, theirs = start(model, endless()), start(other, ask())
    next(mine)
    next(theirs)
    model.close()
    reasons = {done_of(list(mine)).finish_reason, FinishReason.CANCELLED}
    assert reasons <= {FinishReason.CANCELLED, FinishReason.LENGTH}
    assert done_of(list(theirs)).finish_reason is not FinishReason.CANCELLED
    other.close()


def test_closing_wakes_a_waiting_reader(folder: Path) -> None:
    model = LocalModel(str(folder))
    events: list[Event] = []
    begun = threading.Event()

    def read() -> None:
        for event in start(model, endless()):
            events.append(event)
            begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(30)
    model.close()
    reader.join(30)
    assert not reader.is_alive()
    assert isinstance(events[-1], Done)


@pytest.mark.parametrize("how", ["close", "drop"])
def test_leaving_a_stream_cancels_it(model: LocalModel, how: str) -> None:
    stream = start(model, endless())
    next(stream)
    (ticket,) = model._tickets
    if how == "close":
        stream.close()
    else:
        del stream
        gc.collect()
    assert ticket._mailbox.cancelled


def test_dropping_unread_events_cancels_the_generation(
    model: LocalModel,
) -> None:
    request = endless()  # the caller still holds it
    stream = start(model, request)
    (mailbox,) = (ticket._mailbox for ticket in model._tickets)
    del stream
    gc.collect()
    assert mailbox.cancelled


def test_a_stopped_request_ends_as_cancelled(model: LocalModel) -> None:
    request = endless()
    stream = start(model, request)
    next(stream)
    stream.cancel()
    assert done_of(list(stream)).finish_reason is FinishReason.CANCELLED


def test_a_request_that_is_stopped_before_it_starts_ends_as_cancelled(model: LocalModel) -> None:
    generation = model.generate(endless())
    generation.cancel()
    generation.start()
    assert done_of(list(generation)).finish_reason is FinishReason.CANCELLED


def test_a_model_that_is_dropped_is_closed(folder: Path) -> None:
    engine = LocalModel(str(folder))._engine
    gc.collect()
    engine._worker._thread.join(30)
    assert not engine._worker._thread.is_alive()


def test_dropping_a_closed_model_starts_no_thread(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LocalModel(str(folder))
    model.close()
    begun: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", begun.append)
    del model
    gc.collect()
    assert begun == []


def test_a_model_stays_open_while_its_answer_is_read(folder: Path) -> None:
    events = list(start(LocalModel(str(folder)), ask()))
    assert done_of(events).finish_reason is not FinishReason.CANCELLED


def test_a_cancelled_task_leaves_a_working_model(model: LocalModel) -> None:
    async def run() -> list[Event]:
        begun = asyncio.Event()

        async def read() -> None:
            async with aclosing(model.agenerate(endless())) as events:
                await events.start()
                async for _ in events:
                    begun.set()

        task = asyncio.create_task(read())
        await asyncio.wait_for(begun.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await collect(model, ask())

    assert len(tokens_of(asyncio.run(run()))) > 0


def test_concurrent_chats_in_one_loop_do_not_mix(model: LocalModel) -> None:
    requests = [ask(max_tokens=20, temperature=1.0, seed=seed) for seed in range(24)]
    alone = [tokens_of(list(start(model, request))) for request in requests]

    async def together() -> list[list[Event]]:
        return await asyncio.gather(*(collect(model, request) for request in requests))

    assert [tokens_of(events) for events in asyncio.run(together())] == alone
