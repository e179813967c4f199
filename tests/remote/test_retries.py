"""Whether and when a failed request is sent again."""

import pytest

from talu.backends.remote.failures import retry_after
from talu.backends.remote.retries import wait_before_retry
from talu.exceptions import EndpointError

NOW = 1_700_000_000.0


def wait(
    failed: int, retries: int = 100, draw: float = 0.0, *, transient: bool = True, **about: float
) -> float | None:
    error = EndpointError("failed", transient=transient, **about)
    return wait_before_retry(error, failed, retries, lambda: draw)


def test_the_waits_double_up_to_eight_seconds() -> None:
    assert [wait(failed) for failed in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]
    assert wait(10_000, 20_000) == 8


def test_a_quarter_of_a_wait_is_random() -> None:
    assert wait(3, draw=1.0) == 1.5


def test_a_request_is_repeated_as_often_as_allowed() -> None:
    assert [wait(failed, 2) is not None for failed in (1, 2, 3)] == [True, True, False]
    assert wait(1, 0) is None


def test_a_failure_that_would_come_again_is_not_repeated() -> None:
    assert wait(1, transient=False) is None


def test_the_server_decides_how_long_to_wait_up_to_a_minute() -> None:
    assert wait(1, retry_after=12.5) == 12.5
    assert wait(1, retry_after=0.0) == 0.0
    assert wait(1, retry_after=61.0) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:00:00 GMT"}, 0.0),
        ({"retry-after": "9e99"}, 86_400.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_a_wish_of_the_server_is_read_in_every_form(headers, seconds) -> None:
    assert retry_after(headers, NOW) == seconds
