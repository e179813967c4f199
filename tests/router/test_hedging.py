"""When a second model is asked, with times as values."""

import pytest

from talu.router.hedging import Hedging
from talu.router.times import Times


def hedging(times: list[float], requests: int) -> Hedging:
    made = Hedging()
    for time in times:
        made.observe(time)
    for _ in range(requests):
        made.request()
    return made


def test_the_delay_is_the_95th_percentile_of_the_times() -> None:
    assert hedging([number / 100 for number in range(100)], 10).delay() == 0.95


def test_there_is_no_delay_before_twenty_times_are_known() -> None:
    assert hedging([1.0] * 19, 100).delay() is None
    assert hedging([1.0] * 20, 100).delay() == 1.0


def test_only_the_latest_two_hundred_times_count() -> None:
    assert hedging([9.0] * 500 + [1.0] * 200, 10).delay() == 1.0


@pytest.mark.parametrize("requests", [0, 9, 10, 35, 100, 1000])
def test_at_most_one_request_in_ten_is_additional(requests: int) -> None:
    made, spent = hedging([1.0] * 20, 0), 0
    for _ in range(requests):
        made.request()
        spent += made.spend()
    assert requests / 10 - 2 <= spent <= requests / 10
    assert made.hedged == spent


def test_a_quiet_time_saves_up_ten_additional_requests_at_most() -> None:
    made = hedging([1.0] * 20, 10_000)
    assert sum(made.spend() for _ in range(100)) == 10


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [([], 0.5, None), ([3.0], 0.95, 3.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 3.0)],
)
def test_percentiles(values: list[float], share: float, found: float | None) -> None:
    times = Times()
    for value in values:
        times.add(value)
    assert times.percentile(share) == found
