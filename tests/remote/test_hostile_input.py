"""Wrong options and hostile replies end in a typed error without secrets."""

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.replies import failure, json_reply
from tests.remote.server import Cut, Reply

from talu import AnthropicBackend, ModelSpec, OpenAICompatibleBackend
from talu.exceptions import EndpointError, TaluError, ValidationError
from talu.router import check_endpoint, get_model_ids, list_endpoint_models

KEY = "sk-canary-7d41f0-key"
ELSEWHERE = "http://house.example/v1"
NOWHERE = "http://127.0.0.1:1/v1"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all that are attached to it."""
    seen: list[BaseException] = []
    rest = [error]
    while rest:
        each = rest.pop()
        if each is not None and each not in seen:
            seen.append(each)
            rest += [each.__cause__, each.__context__]
    return iter(seen)


def everything(error: BaseException) -> str:
    """What a traceback that shows variables says; frames of this package's tests are left out."""
    texts = []
    for each in chain(error):
        texts += [str(each), repr(vars(each))]
        request = getattr(each, "_request", None)
        texts += [] if request is None else [str(dict(request.headers))]
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if "tests" not in Path(frame.f_code.co_filename).parts:
                texts += [repr(value) for value in frame.f_locals.values()]
    return "\n".join(texts)


def raised(remote: Any, backend: Any) -> TaluError:
    with pytest.raises(TaluError) as caught:
        remote.run(remote.client_of(ModelSpec("m", backend)).ask("hi"))
    return caught.value


def embedded(remote: Any, server: Any, **options: Any) -> Any:
    normalize = options.pop("normalize", True)
    return remote.embed(remote.client(server, **options), ["a"], normalize=normalize)


@pytest.mark.parametrize("code", ["²", "9" * 5000, 302, "302", "3051", 10**30, True, [1], {}])
def test_a_code_that_is_not_an_error_status_is_no_status(
    remote: Any, serve: Any, code: Any
) -> None:
    server = serve(failure(200, "odd", code=code), failure(200, "odd", code=code))
    error = raised(remote, OpenAICompatibleBackend(server.base_url, max_retries=0))
    assert (error.code, "status" in str(error)) == ("SERVER_ERROR", False)
    with pytest.raises(EndpointError, match="odd"):
        list_endpoint_models(server.base_url)


@pytest.mark.parametrize("key", [5, b"sk-canary-7d41f0-key", ["k"]])
def test_a_key_of_a_wrong_type_is_refused(remote: Any, key: Any) -> None:
    error = raised(remote, OpenAICompatibleBackend(NOWHERE, api_key=key))
    assert "api_key must be a text" in str(error)
    assert KEY not in everything(error)
    for check in (list_endpoint_models, check_endpoint, get_model_ids):
        with pytest.raises(ValidationError, match="api_key must be a text"):
            check(NOWHERE, key)


@pytest.mark.parametrize("value", ["a\nb", "ä", 5, "x" * 20_000])
def test_an_organisation_that_cannot_be_a_header_is_refused(remote: Any, value: Any) -> None:
    error = raised(remote, OpenAICompatibleBackend(NOWHERE, org_id=value))
    assert (type(error), error.details["param"]) == (ValidationError, "org_id")


def test_certificates_that_cannot_be_read_are_an_error_of_tls(
    remote: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    for path in (bad, tmp_path / "missing.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        error = raised(remote, OpenAICompatibleBackend("https://localhost:1/v1", api_key=KEY))
        assert (error.code, "SSL_CERT_FILE" in str(error)) == ("ENDPOINT_TLS", True)
        assert KEY not in everything(error)


@pytest.mark.parametrize("proxy", ["socks5://u:canary@h:1", "foo://x"])
def test_a_proxy_that_cannot_be_used_is_named_except_for_this_machine(
    remote: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    server = serve(replies.chat("a"))
    assert remote.run(remote.client(server).ask("hi")) == "a"
    error = raised(remote, OpenAICompatibleBackend(ELSEWHERE))
    assert "ALL_PROXY" in str(error)
    assert "canary" not in str([*map(str, chain(error))])


@pytest.mark.parametrize(
    "url",
    [
        "http://\uff4c\uff4f\uff43\uff41l:1/v1",
        "http://localhost:1/v1?",
        "http://localhost:1/v1#",
        "http://999.1.1.1/v1",
        "http://a..b/v1",
        "http://localhost:0/v1",
    ],
)
def test_an_address_that_the_http_library_would_change_is_refused(remote: Any, url: str) -> None:
    assert type(raised(remote, OpenAICompatibleBackend(url))) is ValidationError


def test_a_dot_after_the_name_of_the_host_is_the_same_host(remote: Any, serve: Any) -> None:
    server = serve(replies.chat("a"))
    url = server.base_url.replace("127.0.0.1", "localhost").replace("localhost", "localhost.")
    assert remote.run(remote.client(server, base_url=url).ask("hi")) == "a"


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": ELSEWHERE, "api_key": KEY},
        {"base_url": KEY},
        {"base_url": f"http://u:{KEY}@localhost:1/v1"},
        {"base_url": NOWHERE, "timeout_ms": KEY},
        {"base_url": NOWHERE, "on_unsupported": KEY},
        {"base_url": NOWHERE, "api_key": f"{KEY} "},
        {"base_url": NOWHERE, "api_key": KEY, "headers": {"b ad": KEY}},
        {"base_url": NOWHERE, "api_key": KEY, "headers": {"Authorization": KEY}},
        {"base_url": NOWHERE, "headers": KEY},
        {"base_url": ELSEWHERE, "headers": {"Authorization": KEY}},
    ],
)
def test_no_variable_of_a_traceback_shows_a_key(
    remote: Any, monkeypatch: pytest.MonkeyPatch, options: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    error = raised(remote, OpenAICompatibleBackend(**options))
    assert type(error) is ValidationError
    assert KEY not in everything(error)


def test_the_key_of_a_variable_that_belongs_elsewhere_is_not_shown(
    remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    spec = ModelSpec("openai::m", OpenAICompatibleBackend("https://house.example/v1"))
    with pytest.raises(TaluError) as caught:
        remote.run(remote.client_of(spec).ask("hi"))
    assert (caught.value.code, KEY in everything(caught.value)) == ("KEY_FOR_ANOTHER_HOST", False)


LISTS = {
    "cut": Reply(before=(Cut(),)),
    "text": json_reply({"data": KEY}),
    "encoding": Reply((b"{}",), headers=(("content-encoding", KEY),)),
    "id": failure(401, "no", headers=[("x-request-id", KEY)]),
    "redirect": replies.redirect(f"http://h/{'a' * 90}{KEY}"),
    "long": failure(400, "x" * 1990 + KEY),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_models_that_fails_does_not_show_the_key(serve: Any, name: str) -> None:
    server = serve(LISTS[name])
    with pytest.raises(TaluError) as caught:
        list_endpoint_models(server.base_url, KEY)
    assert KEY[:14] not in everything(caught.value)


def test_no_secret_of_the_options_is_shown_when_a_server_repeats_it(
    remote: Any, serve: Any
) -> None:
    secrets = ["header-secret", "organisation", "body-secret"]
    server = serve(failure(400, " ".join(secrets)))
    backend = OpenAICompatibleBackend(
        server.base_url,
        org_id=secrets[1],
        headers={"x": f"Bearer {secrets[0]}"},
        extra_params={"a": [{"b": secrets[2]}]},
    )
    shown = str(raised(remote, backend))
    assert [each for each in secrets if each in shown] == []


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "api-key", "Cookie", "x-auth"])
def test_a_header_with_a_key_does_not_travel_in_plain_text(remote: Any, name: str) -> None:
    assert raised(remote, OpenAICompatibleBackend(ELSEWHERE, headers={name: KEY})).code == (
        "INSECURE_KEY"
    )


def test_a_header_that_another_option_sets_is_refused(remote: Any) -> None:
    for options in (
        {"api_key": KEY, "headers": {"authorization": "x"}},
        {"org_id": "o", "headers": {"OpenAI-Organization": "x"}},
        {"headers": {"A": "x", "a": "y"}},
    ):
        assert "given twice" in str(raised(remote, OpenAICompatibleBackend(NOWHERE, **options)))


@pytest.mark.parametrize("vector", [[1e300, 1e300], [1e-300, 0.0], [5e-324, 1e-323]])
def test_very_large_and_small_vectors_get_the_length_1(
    remote: Any, serve: Any, vector: list[float]
) -> None:
    found = embedded(remote, serve(replies.embeddings(vector)))
    assert abs(sum(float(value) ** 2 for value in found[0]) - 1) < 1e-6


@pytest.mark.parametrize("vector", [["1", "2"], [True, False], [10**400], [[1.0]], [None]])
def test_a_vector_that_is_not_of_numbers_is_refused(remote: Any, serve: Any, vector: Any) -> None:
    with pytest.raises(EndpointError) as caught:
        embedded(remote, serve(replies.embeddings(vector)))
    assert caught.value.code == "ENDPOINT_BAD_ANSWER"


def test_a_number_too_large_for_32_bits_is_refused(remote: Any, serve: Any) -> None:
    with pytest.raises(EndpointError, match="too large"):
        embedded(remote, serve(replies.embeddings([1e39])), normalize=False)


@pytest.mark.parametrize("extra", [[1], {"input": "other"}, {"a": {1}}, {1: 2}])
def test_extra_fields_of_embeddings_are_checked(remote: Any, serve: Any, extra: Any) -> None:
    server = serve(replies.embeddings([1.0]))
    with pytest.raises(ValidationError):
        embedded(remote, server, extra_params=extra)
    assert server.requests == []


def test_v1_at_the_end_of_an_address_of_anthropics_protocol_is_not_doubled(
    remote: Any, serve: Any
) -> None:
    server = serve(replies.message("a"))
    client = remote.client_of(ModelSpec("m", AnthropicBackend(server.base_url)))
    assert remote.run(client.ask("hi")) == "a"
    assert server.request.target == "/v1/messages"


def test_a_prompt_that_is_too_long_is_not_repeated(remote: Any, serve: Any) -> None:
    wrong = {"error": {"message": "exceeds the model's maximum context length", "code": "3051"}}
    error = raised(remote, OpenAICompatibleBackend(serve(json_reply(wrong)).base_url))
    assert isinstance(error, EndpointError)
    assert (error.code, error.transient) == ("GENERATION_CONTEXT_OVERFLOW", False)


def test_a_field_with_safety_in_its_name_is_not_a_refused_content(remote: Any, serve: Any) -> None:
    server = serve(failure(400, "unknown field safety_level"))
    assert raised(remote, OpenAICompatibleBackend(server.base_url)).code == "BAD_REQUEST"


def test_an_error_that_is_only_true_is_reported(remote: Any, serve: Any) -> None:
    server = serve(replies.stream(replies.event({"error": True})))
    error = raised(remote, OpenAICompatibleBackend(server.base_url, max_retries=0))
    assert "the server reported an error: true" in str(error)


def test_control_characters_of_a_server_are_not_shown(remote: Any, serve: Any) -> None:
    server = serve(failure(400, "a\x1b[31m\x07\x00\u202eb"))
    error = raised(remote, OpenAICompatibleBackend(server.base_url))
    assert "a\ufffd[31m\ufffd\ufffd\ufffdb" in str(error)


def test_http_at_a_port_of_https_and_the_reverse_are_explained(
    remote: Any, serve: Any, tls: Any
) -> None:
    plain, secure = serve(), serve(tls=tls)
    crossed = [
        (plain.base_url.replace("http:", "https:"), "write http://"),
        (secure.base_url.replace("https:", "http:"), "write https://"),
    ]
    for url, advice in crossed:
        assert advice in str(raised(remote, OpenAICompatibleBackend(url, max_retries=0)))


def test_a_check_refuses_what_cannot_be_asked() -> None:
    wrong: Any = 5
    for arguments in ((wrong,), (NOWHERE, "a b"), (ELSEWHERE, KEY)):
        with pytest.raises(ValidationError):
            check_endpoint(*arguments)
    assert not check_endpoint(NOWHERE, KEY, allow_insecure=True)


def test_a_key_that_a_server_repeats_in_its_list_of_models_is_not_shown(serve: Any) -> None:
    entry = {"id": f"m-{KEY}", "object": KEY, "owned_by": f"{KEY}\x1b[31m"}
    server = serve(replies.json_reply({"data": [entry]}))
    (model,) = list_endpoint_models(server.base_url, KEY)
    assert (model.id, model.object, model.owned_by) == (
        "m-***",
        "***",
        "***\N{REPLACEMENT CHARACTER}[31m",
    )


REPEATED = {
    "a failure": failure(401, f"{KEY} is wrong"),
    "an error of status 200": failure(200, f"{KEY} is wrong"),
    "another form": replies.json_reply({"models": KEY}),
    "no JSON": replies.stream(KEY.encode()),
}


@pytest.mark.parametrize("reply", REPEATED)
def test_an_error_of_a_list_of_models_holds_no_key_that_the_server_repeats(
    serve: Any, reply: str
) -> None:
    server = serve(REPEATED[reply])
    with pytest.raises(TaluError) as caught:
        list_endpoint_models(server.base_url, KEY)
    assert KEY not in everything(caught.value)


def test_a_key_that_a_server_repeats_as_the_name_of_its_model_is_not_shown(
    remote: Any, serve: Any
) -> None:
    ended = {"choices": [{"index": 0, "delta": {}, "finish_reason": f"end {KEY}"}]}
    events = [{"choices": [{"index": 0, "delta": {"content": "a"}}]}, ended]
    steps = [replies.event({**each, "model": f"other {KEY}\x1b"}) for each in events]
    server = serve(replies.stream(*steps))
    answer = remote.run(remote.client(server, api_key=KEY).ask("hi"))
    assert len(answer.notes) == 2
    assert KEY not in str(answer.to_dict())
    assert "\x1b" not in "".join(answer.notes)
