from collections.abc import Callable
from itertools import repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talu.engine.drafts import (
    CREDIT,
    CREDIT_PER_TOKEN,
    LONGEST,
    MEMORY,
    ROWS,
    Drafts,
    StepPlan,
    StepTimes,
)


def times_of(rows_cost: float) -> StepTimes:
    """Times that were measured often enough to be known."""
    times = StepTimes()
    for _ in range(120):
        for rows in range(1, ROWS + 1):
            times.measured(rows, 1 + rows_cost * (rows - 1))
    return times


def test_a_time_is_learnt_and_others_follow_from_it() -> None:
    times = StepTimes()
    guessed = times.estimate(4) / times.estimate(1)
    for _ in range(50):
        times.measured(1, 8.0)
    assert times.estimate(1) == pytest.approx(8.0)
    assert times.estimate(4) / times.estimate(1) == guessed
    for _ in range(50):
        times.measured(4, 10.0)
    assert times.estimate(4) == pytest.approx(10.0, rel=1e-2)


def test_a_single_slow_step_changes_little() -> None:
    times = times_of(0.2)
    times.measured(4, 1000.0)
    assert times.estimate(4) < 1.3 * 1.6


def test_a_time_that_is_not_measured_any_more_is_forgotten() -> None:
    times = StepTimes()
    for rows, seconds in ((1, 1.0), (4, 50.0)):
        for _ in range(50):
            times.measured(rows, seconds)
    assert times.estimate(4) > 10
    for _ in range(2 * MEMORY):
        times.measured(1, 1.0)
    assert times.estimate(4) < 2


@pytest.mark.parametrize(
    ("row_cost", "chance", "expected"),
    [(0.2, 1.0, LONGEST), (0.2, 0.1, 0), (1.0, 0.99, 0), (0.0, 0.5, LONGEST)],
)
def test_rows_are_added_if_they_give_more_tokens_per_time(
    row_cost: float, chance: float, expected: int
) -> None:
    plan = StepPlan(times_of(row_cost), 1)
    count, cost = plan.add(iter([chance] * LONGEST), credit=100.0)
    assert count == expected
    assert cost == pytest.approx(row_cost * count, rel=1e-2, abs=1e-6)


def test_less_certain_drafts_are_shorter() -> None:
    counts = [
        StepPlan(times_of(0.2), 1).add(repeat(chance, LONGEST), 100.0)[0]
        for chance in (0.95, 0.8, 0.5, 0.3)
    ]
    assert counts[0] > counts[1] > counts[2] >= counts[3] > 0


def test_no_more_is_spent_than_the_credit() -> None:
    count, cost = StepPlan(times_of(0.2), 1).add(repeat(1.0, LONGEST), credit=0.5)
    assert count == 2
    assert cost == pytest.approx(0.4, rel=1e-2)


def test_a_draft_delays_other_sequences_only_a_little() -> None:
    times = times_of(0.2)
    alone, _ = StepPlan(times, 1).add(repeat(1.0, LONGEST), credit=100.0)
    beside, _ = StepPlan(times, 2).add(repeat(1.0, LONGEST), credit=100.0)
    assert alone == LONGEST
    assert times.estimate(2 + beside) <= 1.5 * times.estimate(2)


def test_a_large_batch_has_no_room_for_drafts() -> None:
    assert StepPlan(times_of(0.2), ROWS).room == 0
    plan = StepPlan(times_of(0.0), ROWS - 4)
    assert plan.room == 4
    plan.add(repeat(1.0, 3), credit=100.0)
    assert plan.room == 1


def drafted(
    text: list[int], prompt: int, times: StepTimes, check: Callable[[int, int, float], object]
) -> None:
    """Decode a text with drafts; ``check`` gets tokens, steps and the time of the rows."""
    tokens = text[:prompt]
    drafts = Drafts(tokens)
    steps, spent = 0, 0.0
    while len(tokens) < len(text):
        draft = drafts.propose(StepPlan(times, 1), len(text) - len(tokens) - 1)
        rest = text[len(tokens) :]
        right = 0
        while right < len(draft) and draft[right] == rest[right]:
            right += 1
        tokens += rest[: right + 1]
        steps += 1
        spent += times.estimate(1 + len(draft)) / times.estimate(1)
        check(len(tokens) - prompt, steps, spent)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=30),
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=40),
    st.sampled_from([0.05, 0.2, 0.5, 1.0]),
)
def test_drafts_never_cost_more_than_their_budget(
    prompt: list[int], parts: list[list[int]], row_cost: float
) -> None:
    def check(tokens: int, steps: int, spent: float) -> None:
        assert spent <= tokens + CREDIT + CREDIT_PER_TOKEN * tokens + 1e-6

    answer = [token for part in parts for token in part * 2]
    drafted(prompt + answer, len(prompt), times_of(row_cost), check)


def test_a_text_that_misleads_on_purpose_costs_three_percent() -> None:
    """Every pair of tokens occurs again, and is never followed by the same token."""
    answer = [token for n in range(300) for token in (1, 2, 100 + n)]
    found: list[float] = []
    drafted([1, 2, *answer], 2, times_of(0.2), lambda tokens, steps, spent: found.append(spent))
    assert len(answer) < found[-1] <= 1.03 * len(answer) + CREDIT


def test_a_repeated_text_takes_a_third_of_the_time() -> None:
    prompt = list(range(100))
    found: list[tuple[int, float]] = []
    drafted(prompt * 3, 102, times_of(0.2), lambda _, steps, spent: found.append((steps, spent)))
    steps, spent = found[-1]
    assert steps < 30
    assert spent < 198 / 3
