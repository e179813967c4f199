import asyncio
import gc
import multiprocessing
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from talu.engine import worker
from talu.engine.engine import Engine
from talu.engine.scheduler import Limits
from talu.engine.sequence import Sequence
from talu.engine.ticket import Result, Ticket
from talu.exceptions import (
    EmptyPromptError,
    GenerationError,
    ResourceError,
    StateError,
    ValidationError,
)
from talu.protocols import Executor
from talu.sampling import SamplingParams
from talu.types import FinishReason

NewEngine = Callable[..., Engine]
PARAMS = SamplingParams(max_tokens=12, temperature=1.0, top_k=0, top_p=1.0, seed=5)
GREEDY = replace(PARAMS, temperature=0.0)
ENDLESS = replace(PARAMS, max_tokens=10_000)
PROMPT = list(range(40, 90))


def read(ticket: Ticket) -> tuple[list[int], str, Result]:
    """Tokens, text and result of a generation, read to its end."""
    pieces = list(ticket)
    assert ticket.result is not None
    tokens = [token for piece in pieces for token in piece.tokens]
    return tokens, "".join(piece.text for piece in pieces), ticket.result


def tokens_of(ticket: Ticket) -> list[int]:
    return read(ticket)[0]


FIRE = ["RuntimeError: the kernel is on fire"]


def outcome(ticket: Ticket) -> list[int] | list[str]:
    """The tokens of a generation, or in their place why it failed."""
    try:
        return tokens_of(ticket)
    except GenerationError as error:
        return [f"{type(error.__cause__).__name__}: {error.__cause__}"]


class Gated:
    """The real executor, which steps only when it is let, and says when it was asked."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.rows: list[int] = []
        self.asked = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)
        self.open = False

    def step(self, *arrays: Any) -> Any:
        self.rows.append(len(arrays[0]))
        self.asked.release()
        if not self.open:
            assert self.allowed.acquire(timeout=30)
        return self._executor.step(*arrays)

    def close(self) -> None:
        self._executor.close()

    def let(self, steps: int = 1) -> None:
        for _ in range(steps):
            assert self.asked.acquire(timeout=30)
            self.allowed.release()

    def let_all(self) -> None:
        self.open = True
        self.allowed.release(1000)


class Failing:
    """The real executor, except that the steps of the given numbers raise."""

    def __init__(self, executor: Executor, *failures: int) -> None:
        self._executor = executor
        self._failures = failures
        self._steps = 0

    def step(self, *arrays: Any) -> Any:
        self._steps += 1
        if self._steps in self._failures:
            raise RuntimeError("the kernel is on fire")
        return self._executor.step(*arrays)

    def close(self) -> None:
        self._executor.close()


@pytest.fixture
def gated(new_engine: NewEngine) -> Iterator[Callable[..., tuple[Engine, Gated]]]:
    gates: list[Gated] = []

    def wrap(executor: Executor) -> Executor:
        gates.append(Gated(executor))
        return gates[-1]

    def new(**options: Any) -> tuple[Engine, Gated]:
        return new_engine(wrap=wrap, **options), gates[-1]

    yield new
    for gate in gates:
        gate.let_all()


def test_a_second_turn_computes_only_its_new_tokens(
    gated: Callable[..., tuple[Engine, Gated]],
) -> None:
    engine, gate = gated()
    gate.let_all()
    answer = tokens_of(engine.submit(PROMPT, PARAMS))
    before = len(gate.rows)
    turn = [*PROMPT, *answer, 1, 2, 3]
    result = read(engine.submit(turn, replace(PARAMS, max_tokens=1)))[2]
    assert gate.rows[before:] == [len(turn) - 48]
    assert result.usage.cached_tokens == 48


# How a generation ends.


def test_max_tokens_ends_with_length(new_engine: NewEngine) -> None:
    tokens, _, result = read(new_engine().submit(PROMPT, PARAMS))
    assert (len(tokens), result.finish_reason, result.notes) == (12, FinishReason.LENGTH, ())
    assert result.usage.prompt_tokens == 50
    assert result.usage.completion_tokens == 12


def test_an_end_token_stops_and_shows_no_text(new_engine: NewEngine) -> None:
    engine = new_engine()
    tokens, text, _ = read(engine.submit(PROMPT, PARAMS))
    end = frozenset([tokens[5]])
    shorter, less, result = read(engine.submit(PROMPT, replace(PARAMS, stop_token_ids=end)))
    count = tokens.index(tokens[5]) + 1
    assert shorter == tokens[:count]
    assert result.finish_reason is FinishReason.STOP
    assert less == engine.tokenizer.decode(tokens[: count - 1])
    assert text.startswith(less[:-1])


def test_a_stop_sequence_over_token_borders_stops_before_it(
    new_engine: NewEngine, ascii_only: dict[int, float]
) -> None:
    engine = new_engine()
    params = replace(PARAMS, logit_bias=ascii_only)
    _, text, _ = read(engine.submit(PROMPT, params))
    stop = text[4:7]
    _, shorter, result = read(engine.submit(PROMPT, replace(params, stop_sequences=(stop,))))
    assert shorter == text[: text.index(stop)]
    assert (result.finish_reason, result.stop_sequence) == (FinishReason.STOP, stop)


def test_text_that_could_have_become_a_stop_sequence_is_shown_at_the_end(
    new_engine: NewEngine, ascii_only: dict[int, float]
) -> None:
    engine = new_engine()
    params = replace(PARAMS, logit_bias=ascii_only)
    _, text, _ = read(engine.submit(PROMPT, params))
    stop = text[-3:] + "never"
    _, shown, result = read(engine.submit(PROMPT, replace(params, stop_sequences=(stop,))))
    assert shown == text
    assert (result.finish_reason, result.stop_sequence) == (FinishReason.LENGTH, None)


def test_the_pieces_make_up_the_decoded_tokens(new_engine: NewEngine) -> None:
    engine = new_engine()
    tokens, text, _ = read(engine.submit(PROMPT, replace(PARAMS, max_tokens=60)))
    assert text == engine.tokenizer.decode(tokens)


def test_the_context_limit_ends_an_answer_with_length_and_a_note(new_engine: NewEngine) -> None:
    tokens, _, result = read(new_engine().submit(PROMPT, ENDLESS))
    assert len(tokens) == 256 - 50
    assert result.finish_reason is FinishReason.LENGTH
    assert "context limit of 256 tokens" in result.notes[0]


def test_timings_add_up(new_engine: NewEngine) -> None:
    timings = read(new_engine().submit(PROMPT, PARAMS))[2].timings
    assert timings.time_to_first_token_ms == pytest.approx(timings.queue_ms + timings.prefill_ms)
    assert timings.prefill_ms > 0
    assert timings.tokens_per_second == pytest.approx(11e3 / timings.generation_ms)


def test_logprobs_come_with_their_tokens(new_engine: NewEngine) -> None:
    engine = new_engine()
    ticket = engine.submit(PROMPT, replace(GREEDY, top_logprobs=2))
    for piece in ticket:
        (logprob,) = piece.logprobs
        assert logprob.token == piece.tokens[0]
        assert logprob.top_logprobs is not None
        assert logprob.top_logprobs[0][0] == logprob.token
        assert logprob.top_logprobs[0][2] == logprob.logprob
        assert logprob.logprob < 0


# What is refused.


def test_an_empty_prompt_is_refused(new_engine: NewEngine) -> None:
    with pytest.raises(EmptyPromptError):
        new_engine().submit([], PARAMS)


@pytest.mark.parametrize(
    ("prompt", "changes", "name"),
    [
        ([1, 320], {}, "prompt"),
        ([-1], {}, "prompt"),
        ([1], {"logit_bias": {320: 1.0}}, "logit_bias"),
        ([1], {"stop_token_ids": frozenset([400])}, "stop_token_ids"),
    ],
)
def test_a_token_id_outside_the_vocabulary_is_refused(
    prompt: list[int], changes: dict[str, Any], name: str, new_engine: NewEngine
) -> None:
    with pytest.raises(ValidationError, match="0 to 319") as caught:
        new_engine().submit(prompt, replace(PARAMS, **changes))
    assert caught.value.details["param"] == name


@pytest.mark.parametrize("length", [256, 300])
def test_a_prompt_that_fills_the_context_is_refused_with_both_counts(
    length: int, new_engine: NewEngine
) -> None:
    with pytest.raises(GenerationError, match=rf"{length} tokens.*256") as caught:
        new_engine().submit([1] * length, PARAMS)
    assert caught.value.code == "GENERATION_CONTEXT_OVERFLOW"


def test_the_longest_prompt_leaves_room_for_one_token(new_engine: NewEngine) -> None:
    assert len(tokens_of(new_engine().submit([1] * 255, PARAMS))) == 1


def test_the_number_of_waiting_requests_is_limited(
    gated: Callable[..., tuple[Engine, Gated]],
) -> None:
    engine, gate = gated(limits=Limits(jobs=1), max_requests=2)
    tickets = [engine.submit(PROMPT, PARAMS)]
    assert gate.asked.acquire(timeout=30)  # it runs, and waits no longer
    tickets += [engine.submit(PROMPT, PARAMS) for _ in range(2)]
    with pytest.raises(ResourceError, match="2 requests are already waiting"):
        engine.submit(PROMPT, PARAMS)
    gate.let_all()
    assert [len(tokens_of(ticket)) for ticket in tickets] == [12] * 3


def test_the_tokens_of_waiting_requests_are_limited(
    gated: Callable[..., tuple[Engine, Gated]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MAX_WEIGHT", 1000)
    engine, gate = gated(limits=Limits(jobs=1))
    heavy = replace(PARAMS, stop_sequences=("no such text" * 20,))
    tickets = [engine.submit(PROMPT, heavy)]  # alone, a request may weigh more
    with pytest.raises(ResourceError, match="requests with 1,970 tokens are already waiting"):
        engine.submit(PROMPT, PARAMS)
    with pytest.raises(ResourceError, match="requests with 1,970 tokens are already waiting"):
        engine.submit_embedding([PROMPT], ["mean"])
    gate.let_all()
    tokens_of(tickets.pop())
    for _ in range(3):  # none of them leaves anything behind
        tickets = [engine.submit(PROMPT, PARAMS) for _ in range(10)]
        assert [len(tokens_of(ticket)) for ticket in tickets] == [12] * 10


# Failures.


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_failing_step_reaches_every_reader_and_the_engine_keeps_working(
    step: int, new_engine: NewEngine
) -> None:
    engine = new_engine(wrap=lambda executor: Failing(executor, step))
    expected = tokens_of(new_engine().submit(PROMPT, PARAMS))
    tickets = [engine.submit(PROMPT, PARAMS) for _ in range(4)]
    outcomes = [outcome(ticket) for ticket in tickets]
    assert FIRE in outcomes
    assert all(each in (FIRE, expected) for each in outcomes)
    assert tokens_of(engine.submit(PROMPT, PARAMS)) == expected


def test_a_failing_step_reaches_an_awaiting_reader(new_engine: NewEngine) -> None:
    engine = new_engine(wrap=lambda executor: Failing(executor, 3))
    ticket = engine.submit(PROMPT, PARAMS)

    async def read_all() -> list[str]:
        return [piece.text async for piece in ticket]

    with pytest.raises(GenerationError, match="on fire"):
        asyncio.run(read_all())
    assert ticket.result is None


def test_nothing_that_a_failed_step_may_have_written_is_reused(new_engine: NewEngine) -> None:
    engine = new_engine(wrap=lambda executor: Failing(executor, 3))
    with pytest.raises(GenerationError):
        list(engine.submit(PROMPT, PARAMS))
    assert read(engine.submit(PROMPT, PARAMS))[2].usage.cached_tokens == 0


def test_a_request_that_cannot_be_sampled_fails_alone(new_engine: NewEngine) -> None:
    engine = new_engine()
    expected = tokens_of(engine.submit(PROMPT, PARAMS))
    nothing = replace(PARAMS, logit_bias=dict.fromkeys(range(320), -100.0))
    good, bad = engine.submit(PROMPT, PARAMS), engine.submit(PROMPT, nothing)
    with pytest.raises(GenerationError, match="no token could be sampled"):
        list(bad)
    assert tokens_of(good) == expected


# Cancelling and closing.


@pytest.mark.parametrize("how", ["cancel", "close", "drop"])
def test_a_row_is_free_after_the_step_that_runs(
    how: str, gated: Callable[..., tuple[Engine, Gated]]
) -> None:
    engine, gate = gated()
    ticket: Ticket | None = engine.submit(PROMPT, ENDLESS)
    other = engine.submit(PROMPT[:20], ENDLESS)
    gate.let(5)
    assert gate.asked.acquire(timeout=30)
    if how == "drop":
        ticket = None
        gc.collect()
    else:
        getattr(ticket, how)()
    gate.allowed.release()
    assert gate.asked.acquire(timeout=30)
    assert gate.rows[-2:] == [2, 1]
    other.close()


def test_a_cancelled_generation_ends_with_what_it_had(
    gated: Callable[..., tuple[Engine, Gated]],
) -> None:
    engine, gate = gated()
    ticket = engine.submit(PROMPT, ENDLESS)
    gate.let(4)
    first = [next(ticket), next(ticket)]
    ticket.cancel()
    gate.let_all()
    rest, _, result = read(ticket)
    assert result.finish_reason is FinishReason.CANCELLED
    assert result.usage.completion_tokens == len(first) + len(rest) < 10
    whole = tokens_of(engine.submit(PROMPT, PARAMS))
    assert [token for piece in first for token in piece.tokens] + rest == whole[: len(rest) + 2]


def test_a_request_that_still_waits_can_be_cancelled(
    gated: Callable[..., tuple[Engine, Gated]],
) -> None:
    engine, gate = gated(limits=Limits(jobs=1))
    running, waiting = engine.submit(PROMPT, PARAMS), engine.submit(PROMPT, PARAMS)
    waiting.cancel()
    gate.let_all()
    tokens, _, result = read(waiting)
    assert (tokens, result.finish_reason) == ([], FinishReason.CANCELLED)
    assert len(tokens_of(running)) == 12


def test_closing_ends_running_and_waiting_requests(
    gated: Callable[..., tuple[Engine, Gated]],
) -> None:
    engine, gate = gated(limits=Limits(jobs=1))
    tickets = [engine.submit(PROMPT, ENDLESS) for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, ticket) for ticket in tickets]
        gate.let(3)
        closing = pool.submit(engine.close)
        gate.let_all()
        closing.result(30)
        reasons = [reader.result(30)[2].finish_reason for reader in readers]
    assert reasons == [FinishReason.CANCELLED] * 3


def test_a_closed_engine_refuses_and_may_be_closed_again(new_engine: NewEngine) -> None:
    engine = new_engine()
    engine.close()
    engine.close()
    with pytest.raises(StateError, match="closed"):
        engine.submit(PROMPT, PARAMS)


def test_a_request_that_races_with_closing_ends_or_is_refused(new_engine: NewEngine) -> None:
    for _ in range(20):
        engine = new_engine(blocks=32)
        start = threading.Barrier(3)

        def ask(engine: Engine = engine, start: threading.Barrier = start) -> str:
            start.wait(10)
            try:
                return read(engine.submit(PROMPT[:3], GREEDY))[2].finish_reason
            except StateError:
                return "refused"

        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(ask) for _ in range(2)]
            start.wait(10)
            engine.close()
            outcomes = {asked.result(30) for asked in asking}
        assert outcomes <= {"refused", "cancelled", "length"}


def test_closing_frees_the_weights_and_the_cache(new_engine: NewEngine) -> None:
    kept: list[weakref.ref[Any]] = []

    def wrap(executor: Executor) -> Executor:
        kept.extend(weakref.ref(array) for array in executor._cache)
        return executor

    engine = new_engine(wrap=wrap)
    tokens_of(engine.submit(PROMPT, PARAMS))
    engine.close()
    gc.collect()
    assert [ref() for ref in kept] == [None, None]


def test_submitting_in_a_forked_child_raises(new_engine: NewEngine) -> None:
    engine = new_engine()
    answers: Any = multiprocessing.get_context("fork").SimpleQueue()

    def ask() -> None:
        try:
            engine.submit(PROMPT, PARAMS)
        except StateError as error:
            answers.put(str(error))

    process = multiprocessing.get_context("fork").Process(target=ask)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert "forked" in answers.get()


def test_reading_an_inherited_answer_in_a_forked_child_raises(new_engine: NewEngine) -> None:
    ticket = new_engine().submit(PROMPT, ENDLESS)
    next(ticket)
    answers: Any = multiprocessing.get_context("fork").SimpleQueue()

    def read_on() -> None:
        for reading in (lambda: next(ticket), lambda: asyncio.run(anext(ticket))):
            try:
                reading()
            except StateError as error:
                answers.put(str(error))

    process = multiprocessing.get_context("fork").Process(target=read_on, daemon=True)
    process.start()
    process.join(10)
    process.kill()
    assert process.exitcode == 0
    assert all("forked" in answers.get() for _ in range(2))
    ticket.close()


# Many at once.


def test_sixteen_threads_get_what_one_gets(new_engine: NewEngine) -> None:
    engine = new_engine(blocks=256)
    requests = [(PROMPT[: 2 * n + 3], replace(PARAMS, seed=n)) for n in range(16)]
    expected = [tokens_of(engine.submit(*request)) for request in requests]
    start = threading.Barrier(16)

    def ask(request: tuple[list[int], SamplingParams]) -> list[int]:
        start.wait(30)
        return tokens_of(engine.submit(*request))

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, requests)) == expected


def test_a_loop_with_sixty_four_requests_keeps_ticking(new_engine: NewEngine) -> None:
    engine = new_engine(blocks=256)
    threads = threading.active_count()

    async def one(number: int) -> int:
        pieces = [piece async for piece in engine.submit(PROMPT[:number], PARAMS)]
        return len(pieces)

    async def all_of_them() -> tuple[list[int], int]:
        ticks = 0
        requests = asyncio.gather(*(one(number % 40 + 2) for number in range(64)))
        while not requests.done():
            await asyncio.sleep(0)
            ticks += 1
            assert threading.active_count() == threads
        return await requests, ticks

    counts, ticks = asyncio.run(all_of_them())
    assert counts == [12] * 64
    assert ticks > 50


def test_a_step_wakes_an_event_loop_once_for_all_that_wait_in_it(
    gated: Callable[..., tuple[Engine, Gated]],
) -> None:
    engine, gate = gated(blocks=256)
    wakes: list[object] = []

    async def one(number: int) -> int:
        return len([piece async for piece in engine.submit(PROMPT[number:], PARAMS)])

    async def all_of_them(monkeypatch: pytest.MonkeyPatch) -> list[int]:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe

        def counted(*arguments: Any) -> asyncio.Handle:
            wakes.append(arguments)
            return wake(*arguments)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        gate.let_all()
        return await asyncio.gather(*map(one, range(16)))

    with pytest.MonkeyPatch.context() as monkeypatch:
        assert asyncio.run(all_of_them(monkeypatch)) == [12] * 16
    assert len(wakes) <= len(gate.rows) + 1


def test_the_engine_works_after_many_cancellations(new_engine: NewEngine) -> None:
    engine = new_engine(blocks=64)
    expected = tokens_of(engine.submit(PROMPT, PARAMS))

    async def one(number: int) -> None:
        async for _ in engine.submit(PROMPT[number % 7 :], ENDLESS):
            if number % 3 == 0:
                return

    async def storm() -> None:
        tasks = [asyncio.create_task(one(number)) for number in range(60)]
        for number, task in enumerate(tasks):
            for _ in range(number % 5):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(storm())
    assert tokens_of(engine.submit(PROMPT, PARAMS)) == expected


def test_nothing_is_kept_of_generations_that_have_ended(new_engine: NewEngine) -> None:
    engine = new_engine()
    tickets = [engine.submit(PROMPT, PARAMS) for _ in range(30)]
    for ticket in tickets[::2]:
        ticket.close()
    for ticket in tickets[1::2]:
        tokens_of(ticket)
    tokens_of(engine.submit(PROMPT, PARAMS))  # the engine has seen all of the above
    gc.collect()
    assert not any(isinstance(each, Sequence) for each in gc.get_objects())


@pytest.fixture
def ascii_only(new_engine: NewEngine) -> dict[int, float]:
    """A bias that leaves only tokens whose text is one printable ASCII character."""
    text = new_engine().tokenizer.token_text
    shown = {token for token in range(320) if len(text(token)) == 1 and text(token).isascii()}
    return {token: -100.0 for token in range(320) if token not in shown}
