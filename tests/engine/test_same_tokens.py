"""The same request gives the same tokens, whatever else the engine does."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from talu import _native
from talu.engine.engine import Engine
from talu.engine.scheduler import Limits
from talu.engine.ticket import Piece, Ticket
from talu.graph.numpy_executor import NumpyExecutor
from talu.graph.numpy_sampler import sample
from talu.graph.sampler import SampleRow, SamplerSettings
from talu.models import load_architecture
from talu.sampling import SamplingParams
from talu.sources.folder import FolderSource

NewEngine = Callable[..., Engine]
PARAMS = SamplingParams(max_tokens=12, temperature=1.0, top_k=0, top_p=1.0, seed=5)
GREEDY = replace(PARAMS, temperature=0.0)
LOGPROBS = replace(PARAMS, top_logprobs=0)
PROMPT = list(range(40, 90))


def tokens_of(ticket: Ticket) -> list[int]:
    return [token for piece in ticket for token in piece.tokens]


@pytest.mark.parametrize("params", [GREEDY, PARAMS, replace(PARAMS, repetition_penalty=1.3)])
def test_the_tokens_are_those_of_the_slow_way(
    params: SamplingParams, new_engine: NewEngine, checkpoint: Path, tensors: dict[str, Any]
) -> None:
    expected = slow_tokens(checkpoint, tensors, params)
    assert tokens_of(new_engine().submit(PROMPT, params)) == expected


@pytest.fixture(params=["numpy", "native"])
def same(request: pytest.FixtureRequest, new_engine: NewEngine) -> NewEngine:
    """Makes engines whose generations are compared, on each executor."""
    return lambda **options: new_engine(kind=request.param, **options)


def numbers(ticket: Ticket) -> list[tuple[int, float]]:
    """Tokens and their log-probabilities, which tell more than the tokens."""
    return [number for piece in ticket for number in numbers_of(piece)]


def numbers_of(piece: Piece | None) -> list[tuple[int, float]]:
    """Those of one piece; none after the last one."""
    return [(each.token, each.logprob) for each in piece.logprobs] if piece else []


def test_a_request_gives_the_same_tokens_alone_and_among_sixteen(same: NewEngine) -> None:
    alone = numbers(same().submit(PROMPT, LOGPROBS))
    engine = same(blocks=256)
    others = [engine.submit(PROMPT[n:], replace(PARAMS, seed=n)) for n in range(15)]
    among = numbers(engine.submit(PROMPT, LOGPROBS))
    assert among == alone
    assert [len(tokens_of(other)) for other in others] == [12] * 15


@pytest.mark.parametrize("rows", [1, 7, 16, 33])
def test_a_request_gives_the_same_tokens_however_its_prompt_is_cut(
    rows: int, same: NewEngine
) -> None:
    whole = numbers(same().submit(PROMPT, LOGPROBS))
    limits = Limits(prefill_rows=rows, prefill_rows_beside_decodes=rows)
    assert numbers(same(limits=limits).submit(PROMPT, LOGPROBS)) == whole


def test_a_request_gives_the_same_tokens_with_its_prefix_in_the_cache(same: NewEngine) -> None:
    engine = same()
    first = numbers(engine.submit(PROMPT, LOGPROBS))
    ticket = engine.submit(PROMPT, LOGPROBS)
    assert numbers(ticket) == first
    assert ticket.result is not None
    assert ticket.result.usage.cached_tokens == 48


def test_a_namespace_shares_its_prefix_with_no_other(same: NewEngine) -> None:
    engine = same()
    expected = numbers(engine.submit(PROMPT, LOGPROBS))
    cached = []
    for namespace in ("a", "b", "a"):
        ticket = engine.submit(PROMPT, replace(LOGPROBS, cache_namespace=namespace))
        assert numbers(ticket) == expected
        assert ticket.result is not None
        cached.append(ticket.result.usage.cached_tokens)
    assert cached == [0, 0, 48]
    assert [engine.cached(PROMPT, name) for name in ("", "a", "b", "c")] == [48, 48, 48, 0]


def test_a_request_that_lost_its_blocks_gives_the_same_tokens(same: NewEngine) -> None:
    params = replace(PARAMS, max_tokens=150)
    prompts = [[n, *PROMPT] for n in range(3)]
    expected = [tokens_of(same().submit(prompt, params)) for prompt in prompts]
    engine = same(blocks=20)
    tickets = [engine.submit(prompt, params) for prompt in prompts]
    assert [tokens_of(ticket) for ticket in tickets] == expected
    notes = [note for ticket in tickets if ticket.result for note in ticket.result.notes]
    assert any("the cache was full" in note for note in notes)


@dataclass(frozen=True)
class Arrival:
    """A request of a schedule.

    Attributes:
        start, length: which part of the common text its prompt is.
        after: pieces of earlier answers that are read before it is submitted.
    """

    start: int
    length: int
    seed: int
    answer: int
    namespace: str
    after: int

    @property
    def prompt(self) -> list[int]:
        return [40 + n % 100 for n in range(self.start, self.start + self.length)]

    @property
    def params(self) -> SamplingParams:
        return replace(
            LOGPROBS,
            seed=self.seed,
            max_tokens=self.answer,
            cache_namespace=self.namespace,
            temperature=float(self.seed > 0),
        )


ARRIVALS = st.builds(
    Arrival,
    start=st.sampled_from([0, 0, 0, 7]),
    length=st.sampled_from([1, 16, 33, 90]),
    seed=st.integers(0, 2),
    answer=st.sampled_from([1, 9, 40]),
    namespace=st.sampled_from(["", "", "tenant"]),
    after=st.integers(0, 6),
)
LIMITS = st.builds(
    Limits,
    seconds_beside_decodes=st.floats(0.0, 1e303),
    jobs=st.sampled_from([1, 2, 9]),
    prefill_rows=st.sampled_from([1, 5, 16, 256]),
    prefill_rows_beside_decodes=st.sampled_from([1, 3, 64]),
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    arrivals=st.lists(ARRIVALS, min_size=2, max_size=6),
    limits=LIMITS,
    blocks=st.sampled_from([16, 20, 200]),
    threads=st.sampled_from([1, 2]),
    target=st.sampled_from(_native.targets()),
    speculative=st.booleans(),
)
def test_a_request_gives_the_same_tokens_in_any_schedule(
    new_engine: NewEngine,
    arrivals: list[Arrival],
    limits: Limits,
    blocks: int,
    threads: int,
    target: str,
    speculative: bool,
) -> None:
    options = {"threads": threads, "target": target, "speculative": speculative}
    engine = new_engine(kind="native", blocks=blocks, limits=limits, **options)
    tickets: list[Ticket] = []
    found: list[list[tuple[int, float]]] = []
    for number, arrival in enumerate(arrivals):
        for turn in range(arrival.after if tickets else 0):
            at = turn % number
            found[at] += numbers_of(next(tickets[at], None))
        tickets.append(engine.submit(arrival.prompt, arrival.params))
        found.append([])
    for ticket, so_far in zip(tickets, found, strict=True):
        so_far += numbers(ticket)
    engine.close()
    alone = new_engine(kind="native", threads=1, target=target)
    expected = [
        numbers(alone.submit(each.prompt, replace(each.params, cache_namespace=str(number))))
        for number, each in enumerate(arrivals)
    ]
    alone.close()
    assert found == expected


def test_another_seed_gives_other_tokens(new_engine: NewEngine) -> None:
    engine = new_engine()
    assert tokens_of(engine.submit(PROMPT, PARAMS)) != tokens_of(
        engine.submit(PROMPT, replace(PARAMS, seed=6))
    )


def slow_tokens(folder: Path, tensors: dict[str, Any], params: SamplingParams) -> list[int]:
    """Generation without cache, chunks or batch: the whole text is run for each token."""
    tokens = list(PROMPT)
    graph = load_architecture(FolderSource(folder)).graph
    for _ in range(params.max_tokens):
        executor = NumpyExecutor(graph, tensors, blocks=16, block_size=16)
        count = len(tokens)
        logits = executor.step(
            np.array(tokens, np.int32), np.arange(count, dtype=np.int32),
            np.array([0, count], np.int32), np.arange(16, dtype=np.int32)[None],
            np.array([count - 1], np.int32),
        )  # fmt: skip
        chosen = SamplerSettings(
            temperature=params.temperature, top_k=params.top_k, top_p=params.top_p,
            repetition_penalty=params.repetition_penalty, seed=params.seed,
        )  # fmt: skip
        row = SampleRow(chosen, count, np.array(tokens, np.int32))
        tokens.append(sample(logits, [row])[0].token)
    return tokens[len(PROMPT) :]
