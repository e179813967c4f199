"""Secrets stay where they belong: what each server gets, and where a key must not be seen."""

import copy
import io
import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.conftest import CANARY
from tests.remote.server import Reply, Server

from talu import AnthropicBackend, Client, ModelSpec, OpenAICompatibleBackend, Profile
from talu.chat import Hook
from talu.exceptions import StateError, TaluError, ValidationError

KEY = "sk-canary-7d41f0-key"
OTHER = "sk-canary-7d41f0-other"
LOGGERS = ("openai", "anthropic", "httpx2", "httpcore2", "talu", "asyncio", "")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What every logger says at its most talkative level."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [each.level for each in loggers]
    loggers[-1].addHandler(handler)
    for each in loggers:
        each.setLevel(logging.DEBUG)
    yield text
    loggers[-1].removeHandler(handler)
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(level)


class Watching(Hook):
    """A hook that keeps everything it is told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_generation_start(self, *told: Any, **more: Any) -> None:
        self.seen.append((told, more))

    def on_first_token(self, *told: Any, **more: Any) -> None:
        self.seen.append((told, more))

    def on_generation_end(self, *told: Any, **more: Any) -> None:
        self.seen.append((told, more))


def spec(server: Server, kind: str = "openai", name: str = "m", **options: Any) -> ModelSpec:
    """A model at a server, with the protocol of a vendor."""
    if kind == "openai":
        return ModelSpec("m", OpenAICompatibleBackend(server.base_url, **options), name=name)
    return ModelSpec("m", AnthropicBackend(server.url, **options), name=name)


ANSWERS = {"openai": replies.chat, "anthropic": replies.message}
PROTOCOLS = pytest.mark.parametrize("kind", ANSWERS)


@PROTOCOLS
def test_a_server_without_a_key_gets_nothing_of_the_environment(
    remote: Any, serve: Any, canaries: Any, kind: str
) -> None:
    server = serve(ANSWERS[kind]("a"))
    remote.run(remote.client_of(spec(server, kind)).ask("hi"))
    assert CANARY.encode() not in server.raw
    assert [server.request.values(name) for name in ("authorization", "x-api-key")] == [[], []]


@PROTOCOLS
def test_a_server_gets_the_given_key_and_nothing_of_the_environment(
    remote: Any, serve: Any, canaries: Any, kind: str
) -> None:
    server = serve(ANSWERS[kind]("a"))
    remote.run(remote.client_of(spec(server, kind, api_key=KEY)).ask("hi"))
    assert server.request.values("authorization") == [f"Bearer {KEY}"]
    assert CANARY.encode() not in server.raw.replace(KEY.encode(), b"")


@PROTOCOLS
def test_the_headers_of_a_request_are_known(
    remote: Any, serve: Any, canaries: Any, kind: str
) -> None:
    server = serve(ANSWERS[kind]("a"))
    remote.run(remote.client_of(spec(server, kind, headers={"X-Team": "blue"})).ask("hi"))
    names = {name.lower() for name, _ in server.request.headers}
    expected = {"host", "connection", "accept", "accept-encoding", "content-type"}
    expected |= {"content-length", "user-agent", "x-team"}
    assert names - {"anthropic-version"} == expected
    assert server.request.values("user-agent")[0].startswith("talu/")


def test_each_server_gets_its_own_key(remote: Any, serve: Any) -> None:
    servers = [serve(replies.chat("a"), replies.chat("b")) for _ in range(2)]
    client = remote.client_of(
        spec(servers[0], name="one", api_key=KEY), spec(servers[1], name="two", api_key=OTHER)
    )
    for model in ("one", "two", "one", "two"):
        remote.run(client.ask("hi", model=model))
    sent = [
        {value for request in server.requests for value in request.values("authorization")}
        for server in servers
    ]
    assert sent == [{f"Bearer {KEY}"}, {f"Bearer {OTHER}"}]
    assert (OTHER.encode() in servers[0].raw, KEY.encode() in servers[1].raw) == (False, False)


def test_a_key_does_not_follow_a_redirect(remote: Any, serve: Any) -> None:
    other = serve(replies.chat("a"))
    for status in (301, 302, 303, 307, 308):
        server = serve(replies.redirect(f"{other.base_url}/chat/completions", status))
        client = remote.client_of(
            spec(server, api_key=KEY, headers={"api-key": OTHER}, max_retries=3)
        )
        with pytest.raises(TaluError) as caught:
            remote.run(client.ask("hi"))
        assert caught.value.code == "ENDPOINT_REDIRECT"
        assert len(server.requests) == 1
    assert other.requests == []


def test_a_proxy_sees_nothing_of_a_server_on_this_machine(
    remote: Any, serve: Any, proxies: Server
) -> None:
    server = serve(replies.chat("a"))
    assert remote.run(remote.client_of(spec(server, api_key=KEY)).ask("hi")) == "a"
    assert proxies.requests == []


def failing(status: int) -> Reply:
    """A server that repeats the key that it got."""
    return replies.failure(status, f"the key {KEY} is wrong, and so is {CANARY}"[: 20 + len(KEY)])


@PROTOCOLS
def test_a_key_is_never_shown(
    remote: Any, serve: Any, log: io.StringIO, kind: str, home: Path
) -> None:
    server = serve(ANSWERS[kind]("a", "b"), failing(401), replies.stream(), Reply(status=307))
    hook, profile = Watching(), Profile("test")
    client = remote.client_of(
        spec(server, kind, api_key=KEY, headers={"x-other": OTHER}, max_retries=0),
        hooks=[hook],
        profile=profile,
    )
    chat = client.chat()
    seen: list[str] = [repr(client), repr(client.router), repr(client.router.resolve())]
    answer = remote.run(chat.send("hi"))
    seen += [repr(answer), str(answer.to_dict()), repr(chat), repr(chat.items)]
    for _ in range(3):
        with pytest.raises(TaluError) as caught:
            remote.run(chat.send("hi"))
        error = caught.value
        seen += traceback.format_exception(error)
        seen += [repr(error), str(error.details), str(vars(error))]
        seen += [repr(error.__cause__), repr(error.__context__)]
    seen += [repr(hook.seen), log.getvalue()]
    files = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    secrets = [KEY, OTHER]
    assert [secret for secret in secrets if any(secret in text for text in seen)] == []
    assert files != []
    assert [s for s in secrets if any(s.encode() in data for data in files)] == []
    assert "HTTP Request" in log.getvalue()


def test_the_password_of_a_url_is_refused_and_not_shown(remote: Any, serve: Any) -> None:
    server = serve()
    url = server.base_url.replace("://", f"://me:{KEY}@")
    client = remote.client_of(ModelSpec("m", OpenAICompatibleBackend(url)))
    with pytest.raises(TaluError) as caught:
        remote.run(client.ask("hi"))
    shown = [*traceback.format_exception(caught.value), repr(client), repr(client.router)]
    assert not any(KEY in text for text in shown)


def test_a_key_over_plain_http_is_refused_at_a_host_that_is_not_this_machine(remote: Any) -> None:
    backend = OpenAICompatibleBackend("http://models.example:8000/v1", api_key=KEY)
    client = remote.client_of(ModelSpec("m", backend))
    with pytest.raises(TaluError) as caught:
        remote.run(client.ask("hi"))
    assert caught.value.code == "INSECURE_KEY"
    assert KEY not in str(caught.value)


@PROTOCOLS
def test_a_backend_with_secrets_is_not_pickled_and_a_client_neither(serve: Any, kind: str) -> None:
    server = serve()
    model = spec(server, kind, api_key=KEY)
    with Client(model) as client:
        for value in (model, model.backend, client, client.router):
            with pytest.raises((TaluError, TypeError)) as caught:
                pickle.dumps(value)
            assert KEY not in str(caught.value)
    assert KEY not in repr(copy.deepcopy(model))


def test_the_open_backend_does_not_show_its_key(remote: Any, serve: Any) -> None:
    server = serve(replies.chat("a"))
    client = remote.client_of(spec(server, api_key=KEY))
    remote.run(client.ask("hi"))
    backend = client.router.backend()
    assert KEY not in repr(backend) + repr(vars(backend)) + str(vars(backend))


MISPLACED = "CANARY0123456789abcdefghij"  # no known beginning
TIMED: Any = OpenAICompatibleBackend("http://localhost:1", timeout_ms=MISPLACED)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Client("openai::m", MISPLACED),
        lambda: Client("openai::m", None, MISPLACED),
        lambda: Client("openai::m", policy=MISPLACED),
        lambda: Client("openai::m", max_retries=MISPLACED),
        lambda: Client(ModelSpec("m", TIMED)).ask("x"),
        lambda: Client("m", base_url="http://localhost:1").ask("x", extra_body=MISPLACED),
        lambda: Client("m", base_url="http://localhost:1").chat().send("x", extra_body=MISPLACED),
    ],
)
def test_a_key_in_the_place_of_another_argument_is_not_shown(make: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        make()
    assert MISPLACED not in f"{caught.value} {caught.value.details}"
    assert "a value of type str" in str(caught.value)


def test_an_organisation_is_not_pickled() -> None:
    with pytest.raises(StateError, match="an organisation"):
        pickle.dumps(OpenAICompatibleBackend(org_id="org-1"))


def test_a_huge_number_in_an_option_is_not_written_out() -> None:
    with pytest.raises(ValidationError, match="max_retries must be") as caught:
        Client("m", base_url="http://localhost:1", max_retries=10**400).ask("x")
    assert len(str(caught.value)) < 200
