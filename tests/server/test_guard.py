"""What is refused before anything answers: callers, keys, bodies, numbers, names."""

import json
import logging
import socket
from typing import Any

import httpx2
import pytest
from tests.server.conftest import serving

from talu import ModelSpec, ScriptedModel, ValidationError
from talu.exceptions import IOError
from talu.server import ServerOptions
from talu.server.running import listening

KEY, OTHER = "a-key-of-the-tests", "another-key-of-the-tests"
BODY = {"model": "script", "messages": [{"role": "user", "content": "a secret question"}]}
CHAT = "/v1/chat/completions"
PATHS = ("/v1/models", "/health", "/docs", "/metrics", "/v1/nothing")


def post(server: Any, body: Any = None, path: str = CHAT, **options: Any) -> httpx2.Response:
    return httpx2.post(server.url + path, json=BODY if body is None else body, **options)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", ""])
@pytest.mark.parametrize("path", PATHS)
def test_another_host_name_is_refused_on_every_path(pocket, host: str, path: str) -> None:
    answer = httpx2.get(pocket.url + path, headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "HOST_NOT_ALLOWED")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1", "[::1]:80", "192.0.2.1"])
def test_addresses_and_localhost_are_names_of_the_server(pocket, host: str) -> None:
    assert httpx2.get(f"{pocket.url}/health", headers={"host": host}).status_code == 200


def test_an_allowed_host_is_a_name_of_the_server(scripted) -> None:
    _, server = scripted("Hi.", allowed_hosts=("Chat.example.org",))
    answer = httpx2.get(f"{server.url}/health", headers={"host": "chat.example.org:8000"})
    assert answer.status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
def test_pages_of_other_origins_are_refused_with_every_method(
    pocket, method: str, origin: str
) -> None:
    answer = httpx2.request(method, f"{pocket.url}/v1/models", headers={"origin": origin})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "ORIGIN_NOT_ALLOWED")
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_page_of_the_server_itself_may_call_it(pocket) -> None:
    assert httpx2.get(f"{pocket.url}/v1/models", headers={"origin": pocket.url}).is_success


def test_no_cors_header_is_sent_unless_an_origin_is_configured(scripted) -> None:
    origin = "https://chat.example.org"
    _, server = scripted("Hi.", cors_origins=(origin,))
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    allowed = httpx2.options(server.url + CHAT, headers=asked)
    assert allowed.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in allowed.headers
    answer = post(server, headers={"origin": origin})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    plain = httpx2.get(f"{server.url}/health")
    assert "access-control-allow-origin" not in plain.headers


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "chat.example.org"])
def test_an_address_that_others_reach_needs_a_key(host: str) -> None:
    with pytest.raises(ValidationError, match="needs a key"):
        ServerOptions(host=host)
    assert ServerOptions(host=host, api_keys=(KEY,)).host == host


@pytest.mark.parametrize("key", ["short", "with spaces in between", "ключ-из-многих-букв", ""])
def test_a_weak_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        ServerOptions(api_keys=(key,))
    assert not key or key not in str(wrong.value)
    assert KEY not in repr(ServerOptions(api_keys=(KEY,)))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer"},
        {"x-api-key": KEY.upper()},
        {"x-api-key": "\u00ff"},
    ],
    ids=["none", "longer", "basic", "empty", "case", "latin"],
)
def test_a_request_without_a_key_of_the_server_is_refused(scripted, headers: Any) -> None:
    _, server = scripted("Hi.", api_keys=(KEY, OTHER))
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    for path in ("/v1/models", "/metrics", "/v1/nothing"):
        answer = httpx2.get(server.url + path, headers=raw)
        assert (answer.status_code, answer.json()["error"]["code"]) == (
            401,
            "AUTHENTICATION_FAILED",
        )
        assert answer.headers["www-authenticate"] == "Bearer"
    assert post(server, headers=raw).status_code == 401


def test_each_key_opens_the_server_and_has_a_part_of_the_prefix_cache_of_its_own(scripted) -> None:
    model, server = scripted("Hi.", "Hi.", api_keys=(KEY, OTHER))
    assert post(server, headers={"authorization": f"Bearer {KEY}"}).is_success
    assert post(server, headers={"x-api-key": OTHER}).is_success
    spaces = [request.config.cache_namespace for request in model.requests]
    assert len({*spaces, None}) == 3
    assert KEY not in str(spaces)


def test_a_prompt_of_one_key_is_not_in_the_cache_of_another() -> None:
    with serving("talu/pocket", api_keys=(KEY, OTHER)) as server:
        question = {"role": "user", "content": "What is the capital of France? " * 8}
        body = {"model": "talu/pocket", "messages": [question], "max_tokens": 1}
        cached = [
            post(server, body, headers={"x-api-key": key}).json()["usage"]["prompt_tokens_details"]
            for key in (KEY, KEY, OTHER)
        ]
    first, again, other = (each["cached_tokens"] for each in cached)
    assert (first, other) == (0, 0)
    assert again > 0


def test_each_key_may_begin_a_number_of_requests_within_a_minute(scripted) -> None:
    _, server = scripted("1", "2", "3", api_keys=(KEY, OTHER), requests_per_minute=2)
    statuses = [post(server, headers={"x-api-key": KEY}).status_code for _ in range(2)]
    refused = post(server, headers={"x-api-key": KEY})
    assert (statuses, refused.status_code) == ([200, 200], 429)
    assert refused.json()["error"]["code"] == "RATE_LIMITED"
    assert 50 <= int(refused.headers["retry-after"]) <= 61
    assert post(server, headers={"x-api-key": OTHER}).is_success
    assert httpx2.get(f"{server.url}/v1/models", headers={"x-api-key": KEY}).is_success


def test_without_keys_all_requests_have_one_limit(scripted) -> None:
    _, server = scripted("1", requests_per_minute=1)
    assert [post(server).status_code for _ in range(2)] == [200, 429]


def test_a_client_does_not_choose_its_part_of_the_prefix_cache(pocket) -> None:
    for name in ("cache_namespace", "cache_salt"):
        answer = post(pocket, {**BODY, "model": "talu/pocket", name: "key-0"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


@pytest.mark.parametrize("path", ["/health", "/docs", "/openapi.json"])
def test_what_tells_nothing_of_models_and_requests_needs_no_key(path: str) -> None:
    with serving(ModelSpec("a-hidden-name", ScriptedModel()), api_keys=(KEY,)) as server:
        answer = httpx2.get(server.url + path)
    assert answer.is_success
    assert "a-hidden-name" not in answer.text


def test_the_page_of_the_paths_loads_nothing_and_runs_nothing(pocket) -> None:
    page = httpx2.get(f"{pocket.url}/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in page.text
    assert "src=" not in page.text
    assert "POST /v1/chat/completions" in page.text


def test_the_description_has_the_errors_that_are_sent(pocket) -> None:
    described = httpx2.get(f"{pocket.url}/openapi.json").json()
    for path, methods in described["paths"].items():
        for about in methods.values():
            assert "422" not in about["responses"]
            form = about["responses"]["4XX"]["content"]["application/json"]["schema"]["$ref"]
            own = "Anthropic" if path.startswith("/v1/messages") else "OpenAI"
            assert form == f"#/components/schemas/{own}Error"
    assert {*described["components"]["schemas"]["OpenAIErrorDetail"]["required"]} == {
        *post(pocket, {}).json()["error"]
    }


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_a_body_that_a_form_could_send_is_refused(pocket, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = httpx2.post(pocket.url + CHAT, content=json.dumps(BODY), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b"{}", b'{"model": NaN}'],
    ids=["empty", "open", "null", "list", "text", "bytes", "deep", "missing", "nan"],
)
def test_a_body_that_is_not_a_request_is_a_400(pocket, body: bytes) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    answer = httpx2.post(pocket.url + CHAT, content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_beyond_the_limit_is_refused(scripted, *, announced: bool) -> None:
    _, server = scripted("Hi.", max_body=2_000)
    content: Any = b" " * 3_000 if announced else iter([b" " * 1_000] * 3)
    headers = {"content-type": "application/json"}
    answer = httpx2.post(server.url + CHAT, content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "BODY_TOO_LARGE")


def test_a_body_that_does_not_arrive_is_given_up(scripted) -> None:
    _, server = scripted("Hi.", body_timeout=0.1)
    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert b" 408 " in connection.recv(1_000)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "GET"])
def test_another_method_is_not_allowed(pocket, method: str) -> None:
    answer = httpx2.request(method, pocket.url + CHAT, content=b"x" * 100_000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "POST"


def test_a_post_without_a_body_is_answered_by_its_path(pocket) -> None:
    statuses = {path: httpx2.post(pocket.url + path).status_code for path in (*PATHS, CHAT)}
    assert statuses == {
        "/v1/models": 405,
        "/health": 405,
        "/docs": 405,
        "/metrics": 405,
        "/v1/nothing": 404,
        CHAT: 400,
    }


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/x", "Qwen/x"],
)
def test_a_request_opens_no_file_and_no_address(pocket, name: str) -> None:
    answer = post(pocket, {**BODY, "model": name})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "MODEL_NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "part"),
    [
        (CHAT, {"type": "image_url", "image_url": {"url": "URL"}}),
        (CHAT, {"type": "input_audio", "input_audio": {"data": "URL", "format": "wav"}}),
        ("/v1/messages", {"type": "image", "source": {"type": "url", "url": "URL"}}),
        ("/v1/responses", {"type": "input_image", "image_url": "URL"}),
        ("/v1/responses", {"type": "input_file", "file_url": "URL"}),
    ],
)
def test_an_address_in_a_message_is_refused_and_not_opened(
    pocket, path: str, part: dict[str, Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as watched:
        watched.setblocking(False)
        url = f"http://127.0.0.1:{watched.getsockname()[1]}/x.png"
        messages = [{"role": "user", "content": [json.loads(json.dumps(part).replace("URL", url))]}]
        name = "input" if path.endswith("responses") else "messages"
        limit = {"max_tokens": 5} if path.endswith("messages") else {}
        answer = post(pocket, {"model": "talu/pocket", name: messages, **limit}, path)
        assert (answer.status_code, "content[0]" in answer.text) == (400, True)
        with pytest.raises(BlockingIOError):
            watched.accept()


def test_a_request_does_not_choose_where_a_model_is(pocket) -> None:
    for name in ("base_url", "api_base", "api_key", "chat_template", "extra_body"):
        answer = post(pocket, {**BODY, "model": "talu/pocket", name: "http://127.0.0.1:1"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 10**9},
        {"n": -1},
        {"max_tokens": 10**30},
        {"top_logprobs": 10**6, "logprobs": True},
        {"seed": -(10**30)},
        {"temperature": 1e308},
        {"stop": ["x"] * 10_000},
        {"messages": [{"role": "user", "content": "x"}] * 20_000},
        {"tools": [{"type": "function", "function": {"name": f"f{n}"}} for n in range(2_000)]},
        {"logit_bias": {str(n): 1 for n in range(20_000)}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_every_number_and_list_of_a_request_is_bounded(pocket, fields: dict[str, Any]) -> None:
    answer = post(pocket, {**BODY, "model": "talu/pocket", **fields})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].partition("[")[0] in fields


def test_a_schema_that_nests_without_end_is_refused(pocket) -> None:
    schema: dict[str, Any] = {}
    for _ in range(300):
        schema = {"type": "object", "properties": {"x": schema}}
    form = {"type": "json_schema", "json_schema": {"name": "deep", "schema": schema}}
    answer = post(pocket, {**BODY, "model": "talu/pocket", "response_format": form})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "response_format")


def test_the_log_has_neither_prompts_nor_keys_nor_queries(
    scripted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _, server = scripted("Hi.", [RuntimeError("a secret answer")], api_keys=(KEY,))
    headers = {"authorization": f"Bearer {KEY}"}
    post(server, headers=headers, path=f"{CHAT}?api_key={KEY}")
    post(server, headers=headers)
    server.join()
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("talu.server")]
    assert any(line.startswith(f"POST {CHAT} 200") for line in ours)
    assert any(line.startswith(f"POST {CHAT} 500") for line in ours)
    assert not [line for line in ours if "secret" in line or KEY in line]


def test_every_answer_has_an_id_that_the_log_has_as_well(
    scripted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _, server = scripted(own=True)
    answer = httpx2.get(f"{server.url}/v1/nothing")
    server.join()
    assert answer.headers["x-request-id"] == answer.headers["request-id"]
    assert answer.headers["x-request-id"] in caplog.text
    assert "server" not in answer.headers


def test_a_port_that_is_taken_is_an_error_that_names_it(pocket) -> None:
    with pytest.raises(IOError, match=f"cannot listen on 127.0.0.1:{pocket.port}: Address already"):
        listening(ServerOptions(port=pocket.port))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 70_000),
        ("port", True),
        ("max_body", 1),
        ("max_requests", 0),
        ("timeout", 0),
        ("timeout", float("nan")),
        ("body_timeout", "3"),
        ("host", ""),
        ("api_keys", KEY),
        ("allowed_hosts", ("",)),
        ("cors_origins", ("*",)),
        ("cors_origins", ("https://x.example/",)),
    ],
)
def test_an_option_that_is_wrong_is_an_error_that_names_it(name: str, value: Any) -> None:
    options: Any = {name: value}
    with pytest.raises(ValidationError) as wrong:
        ServerOptions(**options)
    assert wrong.value.details["param"] == name
