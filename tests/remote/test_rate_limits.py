"""How long a server takes no further request, as the headers of its answers say."""

from collections.abc import Callable

import pytest
from tests.remote import replies
from tests.remote.server import Server

from talu import Client
from talu.backends.remote.rate_limits import paused_for

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("7.66s", 7.66),
        ("12", 12.0),
        ("9999d", 86_400.0),
        ("2023-11-14T22:14:20Z", 60.0),
        ("2023-11-14T22:13:00+00:00", 0.0),
        ("soon", 0.0),
        ("nan", 0.0),
        ("", 0.0),
        ("1s" * 100_000, 0.0),
        ("1700000030", 30.0),
        ("1700000030.5", 30.5),
        ("1700000030500", 30.5),
        ("1699999990", 0.0),
        ("99999999999999", 86_400.0),
        ("9" * 15, 0.0),
        ("2023-11-14T22:14:20", 60.0),
        ("2023-11-14 22:14:20.500+00:00", 60.5),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("1e2", 0.0),
        ("-5", 0.0),
        ("1_0", 0.0),
        ("١٢", 0.0),
    ],
)
def test_the_time_of_a_reset_is_read_in_every_form(reset: str, seconds: float) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}
    assert paused_for(headers, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000030"},
        {"ratelimit-limit": "100", "ratelimit-remaining": "0", "ratelimit-reset": "30"},
        {"x-ratelimit-remaining-requests-day": "0", "x-ratelimit-reset-requests-day": "30.0"},
        {"x-ratelimit-remaining-requests": "0.0", "x-ratelimit-reset-requests": "30s"},
        {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "30"},
        {"ratelimit": '"default";r=0;t=30'},
        {"ratelimit": '"minute";r=0;t=30, "day, or;r=0";r=7;t=8000'},
        {"ratelimit": "limit=100, remaining=0, reset=30"},
    ],
    ids=str,
)
def test_a_limit_is_read_under_every_name(headers: dict[str, str]) -> None:
    assert paused_for(headers, NOW) == pytest.approx(30.0)


@pytest.mark.parametrize("left", ["", "-1", "1", "none", "0x0", "00" * 100])
def test_a_limit_that_is_not_used_up_or_not_a_number_pauses_nothing(left: str) -> None:
    names = ("x-ratelimit-remaining", "ratelimit-remaining", "x-ratelimit-remaining-tokens")
    headers = dict.fromkeys(names, left) | {"ratelimit": f'"default";r={left};t=30'}
    resets = ("x-ratelimit-reset", "ratelimit-reset", "x-ratelimit-reset-tokens")
    assert paused_for(headers | dict.fromkeys(resets, "30"), NOW) == 0.0


def test_the_header_for_all_limits_has_a_bounded_length() -> None:
    assert paused_for({"ratelimit": '"a";r=0;t=30,' * 10_000}, NOW) == 0.0


def test_the_longest_pause_counts_and_only_of_limits_that_are_used_up() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "5",
        "x-ratelimit-reset-tokens": "60s",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "2023-11-14T22:13:30Z",
    }
    assert paused_for(headers, NOW) == 10.0
    assert paused_for({}, NOW) == 0.0


def test_a_model_knows_what_its_server_has_said(serve: Callable[..., Server]) -> None:
    used_up = [("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "50s")]
    events = replies.chat_events("Hi")
    server = serve(replies.stream(*events, headers=used_up))
    with Client("m", base_url=server.base_url) as client:
        model = client.router.backend()
        assert model.closed_for() == 0.0
        client.ask("Hello?")
        assert 40.0 < model.closed_for() <= 50.0
