from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talu.engine.blocks import BlockPool
from talu.engine.scheduler import Chunk, Job, Limits, Scheduler

SIZE = 4
LIMITS = Limits(jobs=4, prefill_rows=16, prefill_rows_beside_decodes=4)


@dataclass(eq=False, kw_only=True)
class Numbered(Job):
    """A job that ends when it has grown to ``wanted`` tokens."""

    wanted: int = 0


def job(prompt: int, answer: int = 4, first: int = 0) -> Numbered:
    """A job of ``prompt`` tokens; jobs with another ``first`` share no prefix."""
    tokens = [first, *range(1, prompt)]
    return Numbered(tokens=tokens, wanted=prompt + answer)


def new(blocks: int = 100) -> Scheduler[Numbered]:
    return Scheduler(BlockPool(blocks, SIZE), LIMITS)


def step(scheduler: Scheduler[Numbered]) -> list[Chunk[Numbered]]:
    """One step with an executor that needs no time and a sampler that counts."""
    chunks = scheduler.plan()
    sampling = [chunk.job for chunk in chunks if chunk.samples]
    scheduler.complete(chunks)
    for done in sampling:
        done.tokens.append(1000 * done.arrival + len(done.tokens))
        if len(done.tokens) == done.wanted:
            scheduler.remove(done)
    return chunks


def run(scheduler: Scheduler[Numbered]) -> None:
    for _ in range(1000):
        if not step(scheduler):
            break
    assert list(scheduler) == []


def counts(chunks: list[Chunk[Numbered]]) -> dict[Numbered, int]:
    return {chunk.job: chunk.count for chunk in chunks}


def test_a_prompt_runs_in_chunks_and_samples_at_its_end() -> None:
    scheduler = new()
    scheduler.add(job(40))
    planned = [step(scheduler) for _ in range(3)]
    assert [chunks[0].count for chunks in planned] == [16, 16, 8]
    assert [chunks[0].job.computed for chunks in planned] == [40, 40, 40]


def test_only_the_last_chunk_of_a_prompt_samples() -> None:
    scheduler = new()
    scheduler.add(job(20))
    first = scheduler.plan()
    assert not first[0].samples
    scheduler.complete(first)
    assert scheduler.plan()[0].samples


@pytest.mark.parametrize(
    ("seconds", "rows"), [(None, 64), (1e-320, 64), (0.001, 64), (0.002, 49), (0.01, 16), (5.0, 16)]
)
def test_a_slow_model_computes_fewer_rows_of_a_prompt_beside_an_answer(
    seconds: float | None, rows: int
) -> None:
    scheduler: Scheduler[Numbered] = Scheduler(BlockPool(1000, SIZE))
    scheduler.add(job(1, answer=100))
    step(scheduler)
    if seconds is not None:
        scheduler.took(100, 100 * seconds)
    scheduler.took(1, 9.0)  # a single row costs as much as several
    scheduler.add(job(1000, first=1))
    assert [chunk.count for chunk in step(scheduler)] == [1, rows]


def test_an_answer_gets_its_row_in_every_step_beside_a_long_prompt() -> None:
    scheduler = new()
    answering, long = job(3, answer=50, first=1), job(90, first=2)
    scheduler.add(answering)
    step(scheduler)
    scheduler.add(long)
    for _ in range(10):
        assert counts(step(scheduler)) == {answering: 1, long: 4}


def test_a_short_prompt_does_not_wait_for_the_end_of_a_long_one() -> None:
    scheduler = new()
    long, short = job(90, first=1), job(5, first=2)
    scheduler.add(long)
    step(scheduler)
    scheduler.add(short)
    assert counts(step(scheduler)) == {short: 5, long: 11}


def test_prompts_take_turns() -> None:
    scheduler = new()
    jobs = [job(64, first=number) for number in range(3)]
    for each in jobs:
        scheduler.add(each)
    served = [next(iter(counts(step(scheduler)))) for _ in range(6)]
    assert served == jobs * 2


def test_no_more_jobs_run_at_once_than_the_limit() -> None:
    scheduler = new()
    for number in range(9):
        scheduler.add(job(2, first=number))
    step(scheduler)
    assert (scheduler.running, scheduler.waiting) == (4, 5)


def test_jobs_are_admitted_in_the_order_in_which_they_came() -> None:
    scheduler = new(blocks=10)
    running, large, small = job(12, first=1), job(36, first=2), job(2, first=3)
    for each in (running, large, small):
        scheduler.add(each)
    step(scheduler)
    assert [each.blocks != [] for each in (running, large, small)] == [True, False, False]


def test_a_removed_job_frees_its_blocks_at_once() -> None:
    pool = BlockPool(10, SIZE)
    scheduler: Scheduler[Numbered] = Scheduler(pool, LIMITS)
    scheduler.add(job(30))
    step(scheduler)
    assert pool.available == 2
    scheduler.remove(next(iter(scheduler)))
    assert pool.available == 10
    assert scheduler.plan() == []


def test_a_second_turn_computes_only_its_new_tokens() -> None:
    scheduler = new()
    first = job(20)
    scheduler.add(first)
    run(scheduler)
    second = Numbered(tokens=[*first.tokens, 7, 7, 7], wanted=40)
    scheduler.add(second)
    chunk = step(scheduler)[0]
    assert (second.cached, chunk.count) == (20, 7)


def test_equal_prompts_that_run_together_are_computed_once() -> None:
    scheduler = new()
    jobs = [job(60) for _ in range(4)]
    for each in jobs:
        scheduler.add(each)
    rows = 0
    for _ in range(6):
        rows += sum(chunk.count for chunk in step(scheduler))
    assert rows < 100
    assert sum(each.cached for each in jobs) > 140


def test_when_the_cache_is_full_the_youngest_gives_its_blocks_back() -> None:
    scheduler = new(blocks=6)
    old, young = job(8, answer=12, first=1), job(8, answer=12, first=2)
    scheduler.add(old)
    scheduler.add(young)
    for _ in range(12):
        step(scheduler)
    assert old.computed > 8
    assert (young.blocks, young.computed, old.recomputed) == ([], 0, 0)
    run(scheduler)
    assert (len(old.tokens), len(young.tokens)) == (20, 20)


def test_blocks_that_a_job_computed_itself_do_not_count_as_cached() -> None:
    scheduler = new(blocks=6)
    old, young = job(8, answer=12, first=1), job(8, answer=12, first=2)
    scheduler.add(old)
    scheduler.add(young)
    run(scheduler)
    assert young.recomputed
    assert young.cached == 0


@pytest.mark.parametrize("prompt", [1, 4, 5])
def test_a_job_that_fills_the_whole_cache_alone_runs_to_its_end(prompt: int) -> None:
    scheduler = new(blocks=5)
    alone = job(prompt, answer=20 - prompt)
    scheduler.add(alone)
    run(scheduler)
    assert len(alone.tokens) == 20


JOBS = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 10), st.integers(0, 2)), min_size=1, max_size=12
)


@settings(max_examples=150, deadline=None)
@given(jobs=JOBS, blocks=st.integers(10, 40), removed=st.sets(st.integers(0, 60), max_size=6))
def test_every_job_ends_and_no_block_is_lost(
    jobs: list[tuple[int, int, int]], blocks: int, removed: set[int]
) -> None:
    pool = BlockPool(blocks, SIZE)
    scheduler: Scheduler[Numbered] = Scheduler(pool, LIMITS)
    for number, (prompt, answer, first) in enumerate(jobs):
        scheduler.add(job(prompt, answer, first))
        if number % 3 == 0:
            step(scheduler)
    for number in range(10_000):
        everyone = list(scheduler)
        if not everyone:
            break
        if number in removed:
            scheduler.remove(everyone[number % len(everyone)])
        chunks = step(scheduler)
        assert chunks or not list(scheduler)
        assert sum(chunk.count for chunk in chunks) <= LIMITS.jobs + LIMITS.prefill_rows
    assert pool.available == blocks


@settings(max_examples=100, deadline=None)
@given(jobs=JOBS, blocks=st.integers(10, 20))
def test_rows_run_once_in_order_on_blocks_that_reach_them(
    jobs: list[tuple[int, int, int]], blocks: int
) -> None:
    scheduler: Scheduler[Numbered] = Scheduler(BlockPool(blocks, SIZE), LIMITS)
    for prompt, answer, first in jobs:
        scheduler.add(job(prompt, answer, first))
    held: dict[int, list[int]] = {}  # what the executor's cache would hold: block -> tokens
    for _ in range(1000):
        chunks = scheduler.plan()
        for chunk in chunks:
            each = chunk.job
            for position in range(each.computed, each.computed + chunk.count):
                block, place = each.blocks[position // SIZE], position % SIZE
                content = held.setdefault(block, [])
                del content[place:]
                content.append(each.tokens[position])
            seen = [token for block in each.blocks for token in held.get(block, [])]
            length = each.computed + chunk.count
            assert seen[:length] == each.tokens[:length]
        scheduler.complete(chunks)
        for chunk in chunks:
            if chunk.job.pending == 0:
                chunk.job.tokens.append(len(chunk.job.tokens) * 7 % 3)
                if len(chunk.job.tokens) == chunk.job.wanted:
                    scheduler.remove(chunk.job)
    assert list(scheduler) == []
