"""Speculation changes how many tokens a step gives, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from talu.engine.drafts import ROWS, Drafts, StepTimes
from talu.engine.engine import Engine
from talu.engine.scheduler import Chunk, Limits
from talu.engine.sequence import Sequence
from talu.engine.speculation import LONGEST_PAUSE, Speculation
from talu.engine.stops import Stops
from talu.engine.ticket import Mailbox, Piece, Result, Ticket
from talu.protocols import Executor
from talu.sampling import SamplingParams
from talu.tokenizer.tokenizer import Tokenizer
from talu.types import FinishReason, Usage

NewEngine = Callable[..., Engine]
GREEDY = SamplingParams(max_tokens=60, temperature=0.0, top_logprobs=1)
ONE_TOKEN = replace(GREEDY, logit_bias={62: 50.0})  # the answer repeats it
FEW_TOKENS = replace(
    GREEDY, temperature=1.0, top_k=0, logit_bias=dict.fromkeys(range(60, 64), 50.0), seed=3
)  # drafts are often wrong
REPEATING = [*range(40, 60), *range(40, 50)]


class Watched(Executor):
    """An executor that records the number of rows, outputs and sequences of each step."""

    def __init__(self, executor: Executor, steps: list[tuple[int, int, int]]) -> None:
        self._executor = executor
        self._steps = steps

    def step(self, tokens: Any, positions: Any, starts: Any, tables: Any, outputs: Any) -> Any:
        self._steps.append((len(tokens), len(outputs), len(tables)))
        return self._executor.step(tokens, positions, starts, tables, outputs)

    def close(self) -> None:
        self._executor.close()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draft all that is possible, because rows seem to cost nothing."""
    monkeypatch.setattr(StepTimes, "estimate", lambda times, rows: 1.0)


def read(ticket: Ticket) -> tuple[list[Piece], Result]:
    pieces = list(ticket)
    assert ticket.result is not None
    return pieces, ticket.result


def outcome(ticket: Ticket) -> tuple[Any, ...]:
    """All of an answer but the times and the numbers of drafts."""
    pieces, result = read(ticket)
    usage = replace(result.usage, draft_tokens=None, accepted_draft_tokens=None, cached_tokens=None)
    notes = [note for note in result.notes if "the cache was full" not in note]
    return pieces, result.finish_reason, result.stop_sequence, usage, notes


def drafts_of(result: Result) -> tuple[int, int]:
    usage = result.usage
    assert usage.draft_tokens is not None
    assert usage.accepted_draft_tokens is not None
    return usage.draft_tokens, usage.accepted_draft_tokens


def test_a_repetitive_answer_takes_fewer_steps_and_says_so(new_engine: NewEngine) -> None:
    steps: list[tuple[int, int, int]] = []
    plain = outcome(new_engine(kind="native").submit(REPEATING, ONE_TOKEN))
    engine = new_engine(
        kind="native", speculative=True, wrap=lambda executor: Watched(executor, steps)
    )
    pieces, result = read(engine.submit(REPEATING, ONE_TOKEN))
    drafted, accepted = drafts_of(result)
    assert pieces == plain[0]
    assert drafted >= accepted > 10
    assert len(steps) == ONE_TOKEN.max_tokens - accepted
    assert sum(outputs for _, outputs, _ in steps) == len(steps) + drafted


def test_without_speculation_the_numbers_are_none(new_engine: NewEngine) -> None:
    _, result = read(new_engine().submit(REPEATING, GREEDY))
    assert result.usage == Usage(len(REPEATING), GREEDY.max_tokens, 0)
    _, result = read(new_engine(speculative=True).submit([1, 2], replace(GREEDY, max_tokens=1)))
    assert drafts_of(result) == (0, 0)


prompts = st.lists(
    st.lists(st.integers(60, 63), min_size=1, max_size=12), min_size=1, max_size=6
).map(lambda parts: [token for part in parts for token in part * 2])
params = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 120),
    temperature=st.sampled_from([0.0, 0.0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 2, 5]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.2]),
    presence_penalty=st.sampled_from([0.0, 0.0, 0.3]),
    frequency_penalty=st.sampled_from([0.0, 0.0, -0.2]),
    seed=st.integers(0, 5),
    stop_sequences=st.sampled_from([(), (), ("A", "aa", "?9"), ("<|im_start|>",)]),
    stop_token_ids=st.frozensets(st.integers(0, 300), max_size=6),
    logit_bias=st.sampled_from([{}, ONE_TOKEN.logit_bias, FEW_TOKENS.logit_bias]),
    top_logprobs=st.sampled_from([-1, 0, 3]),
)
limits = st.builds(
    Limits,
    seconds_beside_decodes=st.floats(0.0, 1e303),
    jobs=st.integers(1, 6),
    prefill_rows=st.integers(1, 40),
    prefill_rows_beside_decodes=st.integers(1, 40),
)


def test_every_request_gives_what_it_gives_alone_without_speculation(
    new_engine: NewEngine, eager: None
) -> None:
    plain = new_engine(kind="native", blocks=400)
    spent = [0, 0]

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(st.tuples(prompts, params), min_size=1, max_size=6), limits, st.integers(16, 28)
    )
    def check(
        requests: list[tuple[list[int], SamplingParams]], limits: Limits, blocks: int
    ) -> None:
        expected = [outcome(plain.submit(*request)) for request in requests]
        engine = new_engine(kind="native", blocks=blocks, limits=limits, speculative=True)
        tickets = [engine.submit(*request) for request in requests]
        assert [outcome(ticket) for ticket in tickets] == expected
        for ticket in tickets:
            assert ticket.result is not None
            spent[:] = map(sum, zip(spent, drafts_of(ticket.result), strict=True))
        for (prompt, _), answer in zip(requests, expected, strict=True):  # from the prefix cache
            tokens = [token for piece in answer[0] for token in piece.tokens]
            follow_up = [*prompt, *tokens[:-1], 64], replace(GREEDY, max_tokens=2)
            assert outcome(engine.submit(*follow_up)) == outcome(plain.submit(*follow_up))
        engine.close()

    check()
    drafted, accepted = spent
    assert drafted > accepted > 0


@pytest.mark.parametrize(
    "penalty",
    [{"repetition_penalty": 1.1}, {"presence_penalty": 2.0}, {"frequency_penalty": 0.7}],
)
def test_penalties_see_the_tokens_of_a_draft(
    penalty: dict[str, float], new_engine: NewEngine, eager: None
) -> None:
    params = replace(FEW_TOKENS, **penalty)
    prompt = [60, 61, 62, 63] * 3
    plain, engine = new_engine(kind="native"), new_engine(kind="native", speculative=True)
    for seed in range(5):
        seeded = replace(params, seed=seed)
        assert outcome(engine.submit(prompt, seeded)) == outcome(plain.submit(prompt, seeded))


def test_requests_that_lose_their_blocks_give_the_same_tokens(
    new_engine: NewEngine, eager: None
) -> None:
    params = replace(FEW_TOKENS, max_tokens=150)
    prompts = [[n, *REPEATING] for n in range(3)]
    plain = new_engine(kind="native")
    expected = [outcome(plain.submit(prompt, params)) for prompt in prompts]
    engine = new_engine(kind="native", blocks=20, speculative=True)
    tickets = [engine.submit(prompt, params) for prompt in prompts]
    assert [outcome(ticket) for ticket in tickets] == expected
    notes = [note for ticket in tickets if ticket.result for note in ticket.result.notes]
    assert any("the cache was full" in note for note in notes)


def test_rejected_tokens_are_not_in_the_prefix_cache(new_engine: NewEngine, eager: None) -> None:
    plain, engine = new_engine(kind="native"), new_engine(kind="native", speculative=True)
    answers = []
    for each in (plain, engine):
        pieces, result = read(each.submit(REPEATING, FEW_TOKENS))
        answers.append([token for piece in pieces for token in piece.tokens])
    assert answers[0] == answers[1]
    drafted, accepted = drafts_of(result)
    assert drafted > accepted > 0
    whole = [*REPEATING, *answers[0], 1]
    assert engine.cached(whole) == plain.cached(whole)
    for place in range(len(REPEATING), len(whole) - 1):
        wrong = [*whole[:place], (whole[place] + 1) % 300, *whole[place + 1 :]]
        assert engine.cached(wrong) <= place
    again = outcome(engine.submit(whole[:-20], GREEDY))
    assert again == outcome(new_engine(kind="native").submit(whole[:-20], GREEDY))


def test_the_next_turn_finds_as_much_in_the_cache_as_without_speculation(
    new_engine: NewEngine, eager: None
) -> None:
    for length in range(32, 44, 2):
        cached = []
        for speculative in (False, True):
            engine = new_engine(kind="native", speculative=speculative)
            params = replace(FEW_TOKENS, max_tokens=length)
            tokens = [token for piece in engine.submit(REPEATING, params) for token in piece.tokens]
            cached.append(engine.cached([*REPEATING, *tokens, 1, 2]))
            engine.close()
        assert cached[0] == cached[1]


def test_a_large_batch_computes_no_draft(new_engine: NewEngine, eager: None) -> None:
    steps: list[tuple[int, int, int]] = []
    engine = new_engine(
        kind="native",
        speculative=True,
        blocks=400,
        wrap=lambda executor: Watched(executor, steps),
    )
    tickets = [engine.submit([n, *REPEATING], FEW_TOKENS) for n in range(ROWS + 8)]
    for ticket in tickets:
        list(ticket)
    decoding = [(rows, sequences) for rows, outputs, sequences in steps if rows == outputs]
    assert any(sequences > ROWS for _, sequences in decoding)
    assert any(rows > sequences for rows, sequences in decoding)
    assert all(rows <= max(ROWS, sequences) for rows, sequences in decoding)


class Broken(Watched):
    """Gives NaN for each row after a draft token that greedy decoding rejects."""

    broken = 0

    def step(self, tokens: Any, positions: Any, starts: Any, tables: Any, outputs: Any) -> Any:
        logits = np.asarray(super().step(tokens, positions, starts, tables, outputs))
        if len(outputs) > 1:  # there is one sequence, and its last rows have outputs
            best, rejected = 60 + logits[:, 60:64].argmax(axis=1), False
            for row, output in enumerate(outputs[:-1]):
                rejected = rejected or best[row] != tokens[output + 1]
                if rejected:
                    logits[row + 1] = np.nan
                    Broken.broken += 1
        return logits


def test_a_row_after_a_rejected_token_cannot_end_the_answer(
    new_engine: NewEngine, eager: None
) -> None:
    prompt = [60, 61, 62, 63, 60, 61, 62, 63, 60, 61]
    params = replace(FEW_TOKENS, temperature=0.0)
    expected = outcome(new_engine(kind="native").submit(prompt, params))
    engine = new_engine(kind="native", speculative=True, wrap=lambda each: Broken(each, []))
    assert outcome(engine.submit(prompt, params)) == expected
    assert Broken.broken > 0


def drafts_in_each_step(seconds: float, tokenizer: Tokenizer) -> list[int]:
    """Draft tokens in steps of a text that repeats itself, after a step that had none."""
    tokens = list(range(10))
    sequence = Sequence(
        tokens=tokens,
        context_length=200,
        params=GREEDY,
        mailbox=Mailbox(10),
        tokenizer=tokenizer,
        decoder=tokenizer.decoder(),
        stops=Stops(()),
        drafts=Drafts(tokens),
    )
    speculation, counts = Speculation(), []
    for step in range(LONGEST_PAUSE + 2):
        sequence.computed = len(tokens) - 1
        (chunk,) = speculation.with_drafts([Chunk(sequence, 1)], lambda _, most: most)
        counts.append(len(chunk.draft))
        speculation.measured(seconds)
        tokens.append(step % 5)
    return counts


def test_drafts_are_looked_for_less_often_if_steps_take_less_time_than_that(
    tokenizer: Tokenizer,
) -> None:
    short = drafts_in_each_step(1e-9, tokenizer)
    assert short[:-1] == [0] * (LONGEST_PAUSE + 1)
    assert short[-1] > 0
    assert sum(map(bool, drafts_in_each_step(100.0, tokenizer))) > LONGEST_PAUSE // 2


def test_cancelling_keeps_the_tokens_so_far_and_frees_the_blocks(new_engine: NewEngine) -> None:
    engine = new_engine(kind="native", speculative=True, blocks=17)
    ticket = engine.submit(REPEATING, replace(ONE_TOKEN, max_tokens=200))
    pieces = [next(ticket) for _ in range(20)]
    ticket.cancel()
    more, result = read(ticket)
    count = len(pieces) + len(more)
    assert result.finish_reason is FinishReason.CANCELLED
    assert result.usage.completion_tokens == count
    other = list(range(100, 300))
    assert len(list(engine.submit(other, replace(GREEDY, max_tokens=50)))) == 50


def test_an_answer_fills_the_context_to_its_last_token(new_engine: NewEngine, eager: None) -> None:
    params = replace(FEW_TOKENS, max_tokens=1000)
    expected = outcome(new_engine(kind="native").submit(REPEATING, params))
    found = outcome(new_engine(kind="native", speculative=True).submit(REPEATING, params))
    assert found == expected
    assert found[1] is FinishReason.LENGTH
