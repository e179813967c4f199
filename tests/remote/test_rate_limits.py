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
        ("1s" * 100_000, 86_400.0),
    ],
)
def test_the_time_of_a_reset_is_read_in_every_form(reset: str, seconds: float) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}
    assert paused_for(headers, NOW) == pytest.approx(seconds)


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
