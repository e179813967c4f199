"""Embeddings on an engine: batched, cut and mixed as it likes, always the same vectors."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from talu.engine.engine import Engine
from talu.exceptions import (
    EmptyPromptError,
    GenerationError,
    ResourceError,
    StateError,
    ValidationError,
)
from talu.protocols import Executor
from talu.sampling import SamplingParams

POOLINGS = ["last", "mean", "first"]
GREEDY = SamplingParams(max_tokens=40, temperature=0.0)
every_pooling = pytest.mark.parametrize("pooling", POOLINGS)


def texts(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 320, length).tolist() for length in lengths]


class Watched:
    """An executor that counts the rows of its steps, waits for a gate, and fails when told."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.steps: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.failures = 0
        self.hold_after = 0  # steps; then the gate closes

    def step(self, tokens: Any, *others: Any) -> Any:
        self.entered.set()
        assert self.gate.wait(20)
        self.steps.append(len(tokens))
        if len(self.steps) == self.hold_after:
            self.gate.clear()
        if self.failures:
            self.failures -= 1
            raise MemoryError("no more")
        return self.executor.step(tokens, *others)

    def close(self) -> None:
        self.executor.close()


@pytest.fixture
def watched(new_engine: Callable[..., Engine]) -> Callable[..., tuple[Engine, Watched]]:
    """An engine and the executor of its embeddings, which is opened by a first text."""

    def new(**options: Any) -> tuple[Engine, Watched]:
        executors: list[Watched] = []

        def wrap(executor: Executor) -> Watched:
            executors.append(Watched(executor))
            return executors[-1]

        engine = new_engine(wrap=wrap, **options)
        engine.submit_embedding([[1, 2]], ["last"]).wait()
        executors[-1].steps.clear()
        executors[-1].entered.clear()
        return engine, executors[-1]

    return new


@every_pooling
def test_a_batch_gives_bit_for_bit_what_single_calls_give(
    new_engine: Callable[..., Engine], pooling: Any
) -> None:
    engine = new_engine(kind="native")
    batch = texts(40, 1, 250, 3, 16, 17, 120, 250, 2, 64)
    together = engine.submit_embedding(batch, [pooling]).wait()
    alone = np.concatenate([engine.submit_embedding([ids], [pooling]).wait() for ids in batch])
    assert together.shape == (10, 64)
    assert np.array_equal(together, alone)
    assert np.array_equal(engine.submit_embedding(batch[::-1], [pooling]).wait(), alone[::-1])


@every_pooling
def test_a_text_that_is_cut_beside_generations_has_the_same_vector(
    new_engine: Callable[..., Engine], pooling: Any
) -> None:
    batch = texts(200, 5, 130)
    quiet = new_engine(kind="native").submit_embedding(batch, [pooling]).wait()
    engine = new_engine(kind="native")
    answer = engine.submit([1, 2, 3], GREEDY)
    next(answer)
    busy = engine.submit_embedding(batch, [pooling]).wait()
    assert np.array_equal(busy, quiet)
    assert sum(len(piece.tokens) for piece in answer) == GREEDY.max_tokens - 1


def test_poolings_are_of_the_rows_after_the_last_norm(new_engine: Callable[..., Engine]) -> None:
    engine = new_engine()
    ids = texts(9)[0]
    rows = [engine.submit_embedding([ids[: i + 1]], ["last"]).wait()[0] for i in range(9)]
    mean, first, last = (engine.submit_embedding([ids], [way]).wait()[0] for way in
                         ("mean", "first", "last"))  # fmt: skip
    np.testing.assert_allclose(mean, np.mean(rows, axis=0), atol=1e-5)
    np.testing.assert_allclose(first, rows[0], atol=1e-5)
    np.testing.assert_array_equal(last, rows[-1])


def test_embeddings_change_no_token_of_a_generation(new_engine: Callable[..., Engine]) -> None:
    alone = [p.tokens for p in new_engine(kind="native").submit([5, 6, 7], GREEDY)]
    engine = new_engine(kind="native")
    answer = engine.submit([5, 6, 7], GREEDY)
    waiting = [engine.submit_embedding(texts(200, 100), ["mean"]) for _ in range(3)]
    assert [piece.tokens for piece in answer] == alone
    assert all(ticket.wait().shape == (2, 64) for ticket in waiting)


def test_many_texts_run_in_few_steps(watched: Callable[..., tuple[Engine, Watched]]) -> None:
    engine, executor = watched()
    engine.submit_embedding(texts(*[16] * 128), ["mean"]).wait()
    assert executor.steps == [768, 768, 512]


def test_two_callers_take_turns_in_the_steps(
    watched: Callable[..., tuple[Engine, Watched]],
) -> None:
    engine, executor = watched()
    executor.gate.clear()
    first = engine.submit_embedding(texts(100), ["last"])
    assert executor.entered.wait(20)
    many = engine.submit_embedding(texts(*[50] * 8), ["last"])
    few = engine.submit_embedding(texts(7), ["last"])
    executor.hold_after = 2
    executor.gate.set()
    first.wait()
    few.wait()  # it comes with the second step, and not behind the eight long ones
    executor.gate.set()
    many.wait()
    assert sum(executor.steps) == 100 + 8 * 50 + 7


def test_beside_a_generation_a_step_is_short(
    watched: Callable[..., tuple[Engine, Watched]],
) -> None:
    engine, executor = watched()
    answer = engine.submit([1, 2, 3], SamplingParams(max_tokens=200, temperature=0.0))
    next(answer)
    engine.submit_embedding(texts(250), ["last"]).wait()
    answer.close()
    assert executor.steps[0] == 64


def test_an_empty_batch_gives_no_vectors(new_engine: Callable[..., Engine]) -> None:
    assert new_engine().submit_embedding([], ["last"]).wait().shape == (0, 64)


def test_a_text_of_the_whole_context_fits_and_a_longer_one_is_refused_with_the_counts(
    new_engine: Callable[..., Engine],
) -> None:
    engine = new_engine()
    assert engine.submit_embedding(texts(256), ["mean"]).wait().shape == (1, 64)
    with pytest.raises(GenerationError, match=r"text 1 has 257 tokens.*takes 256") as caught:
        engine.submit_embedding(texts(3, 257), ["mean"])
    assert caught.value.code == "GENERATION_CONTEXT_OVERFLOW"
    assert caught.value.details == {"index": 1, "tokens": 257, "context_length": 256}


def test_empty_texts_and_unknown_tokens_are_refused(
    new_engine: Callable[..., Engine],
) -> None:
    engine = new_engine()
    with pytest.raises(EmptyPromptError, match="text 1 has no tokens"):
        engine.submit_embedding([[1], []], ["mean"])
    with pytest.raises(ValidationError, match="text 0 has token id 320"):
        engine.submit_embedding([[320]], ["mean"])


def test_a_failed_step_fails_only_the_requests_in_it(
    watched: Callable[..., tuple[Engine, Watched]],
) -> None:
    engine, executor = watched()
    expected = engine.submit_embedding(texts(20), ["last"]).wait()
    executor.failures = 1
    with pytest.raises(GenerationError, match="no more"):
        engine.submit_embedding(texts(20), ["last"]).wait()
    assert np.array_equal(engine.submit_embedding(texts(20), ["last"]).wait(), expected)
    assert len(list(engine.submit([1, 2], GREEDY))) > 0


def test_closing_ends_waiting_requests(watched: Callable[..., tuple[Engine, Watched]]) -> None:
    engine, executor = watched()
    executor.gate.clear()
    ticket = engine.submit_embedding(texts(*[200] * 20), ["last"])
    assert executor.entered.wait(20)
    closing = threading.Thread(target=engine.close)
    closing.start()
    executor.gate.set()
    with pytest.raises(StateError, match="closed"):
        ticket.wait()
    closing.join()
    assert len(executor.steps) <= 8
    with pytest.raises(StateError):
        engine.submit_embedding([[1]], ["last"])


def test_a_cancelled_request_frees_the_engine_at_once(
    watched: Callable[..., tuple[Engine, Watched]],
) -> None:
    engine, executor = watched()
    executor.gate.clear()
    ticket = engine.submit_embedding(texts(*[200] * 20), ["last"])
    assert executor.entered.wait(20)
    ticket.cancel()
    executor.gate.set()
    with pytest.raises(StateError, match="cancelled"):
        ticket.wait()
    assert len(executor.steps) == 1
    assert engine.submit_embedding(texts(5), ["last"]).wait().shape == (1, 64)


def test_too_many_requests_are_refused(
    watched: Callable[..., tuple[Engine, Watched]],
) -> None:
    engine, executor = watched(max_requests=3)
    executor.gate.clear()
    first = engine.submit_embedding(texts(5), ["last"])
    assert executor.entered.wait(20)
    tickets = [first, *(engine.submit_embedding(texts(5), ["last"]) for _ in range(3))]
    with pytest.raises(ResourceError, match="requests are already waiting"):
        engine.submit_embedding(texts(5), ["last"])
    executor.gate.set()
    assert all(ticket.wait().shape == (1, 64) for ticket in tickets)
