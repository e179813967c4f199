"""Where requests go, and which key goes with them."""

import pytest

from talu.backends.remote.endpoint import Endpoint, endpoint_of, is_loopback, provider_at
from talu.backends.remote.options import AnthropicBackend, OpenAICompatibleBackend
from talu.backends.remote.providers import PLAIN, PROVIDERS
from talu.exceptions import ValidationError

KEYS = {row.key_variable: f"key-of-{row.name}" for row in PROVIDERS.values() if row.key_variable}


def endpoint(name: str, environment: dict[str, str] | None = None, **options: object) -> Endpoint:
    row = PLAIN if name == "plain" else PROVIDERS[name]
    kind = AnthropicBackend if row.protocol == "anthropic" else OpenAICompatibleBackend
    return endpoint_of(row, kind(**options), environment or {})


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_gets_the_key_of_its_own_variable_only(name: str) -> None:
    found = endpoint(name, KEYS)
    assert (found.url, found.key) == (PROVIDERS[name].base_url, f"key-of-{name}")


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_variable_with_an_address_takes_the_key_along(name: str) -> None:
    address = {f"{name.upper()}_BASE_URL": "https://proxy.example:8443/v1/"}
    found = endpoint(name, KEYS | address)
    path = "" if name == "anthropic" else "/v1"  # which the protocol adds itself
    assert (found.url, found.key) == (f"https://proxy.example:8443{path}", f"key-of-{name}")


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_key_of_a_variable_is_refused_at_another_address(name: str) -> None:
    with pytest.raises(ValidationError, match="belongs to") as caught:
        endpoint(name, KEYS, base_url="https://elsewhere.example/v1")
    assert caught.value.code == "KEY_FOR_ANOTHER_HOST"
    assert f"key-of-{name}" not in f"{caught.value}{caught.value.details}"
    assert str(PROVIDERS[name].key_variable) in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.openai.com/v1",
        "https://api.openai.com:444/v1",
        "https://api.openai.com.evil.example/v1",
        "https://api-openai.com/v1",
        "https://127.0.0.1/v1",
    ],
)
def test_a_key_is_bound_to_scheme_host_and_port(url: str) -> None:
    with pytest.raises(ValidationError, match="is not sent to") as caught:
        endpoint("openai", KEYS, base_url=url)
    assert caught.value.code == "KEY_FOR_ANOTHER_HOST"


@pytest.mark.parametrize(
    "url",
    ["https://API.openai.com/v1", "https://api.openai.com:443/v1", "https://api.openai.com/v2"],
)
def test_another_path_or_spelling_is_the_same_host(url: str) -> None:
    assert endpoint("openai", KEYS, base_url=url).key == "key-of-openai"


def test_an_address_without_a_provider_gets_no_key_of_a_variable() -> None:
    assert endpoint("plain", KEYS, base_url="https://elsewhere.example/v1").key is None


def test_a_given_key_goes_to_the_given_address() -> None:
    found = endpoint("openai", KEYS, base_url="https://elsewhere.example/v1", api_key="mine")
    assert found.key == "mine"


def test_an_empty_key_is_none_even_where_one_is_needed() -> None:
    assert endpoint("openai", KEYS, api_key="").key is None


@pytest.mark.parametrize("name", [name for name, row in PROVIDERS.items() if row.needs_key])
def test_a_missing_key_is_named_before_anything_is_sent(name: str) -> None:
    with pytest.raises(ValidationError, match=str(PROVIDERS[name].key_variable)) as caught:
        endpoint(name)
    assert caught.value.code == "MISSING_KEY"


@pytest.mark.parametrize("name", [name for name, row in PROVIDERS.items() if not row.needs_key])
def test_a_server_of_ones_own_needs_no_key(name: str) -> None:
    assert endpoint(name).key is None
    assert endpoint(name, base_url="http://house.example:8000/v1").key is None


def test_a_key_does_not_travel_in_plain_text() -> None:
    options = {"base_url": "http://house.example/v1", "api_key": "mine"}
    with pytest.raises(ValidationError, match="would travel in plain text") as caught:
        endpoint("plain", **options)
    assert caught.value.code == "INSECURE_KEY"
    assert endpoint("plain", **options, allow_insecure=True).key == "mine"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "127.1.2.3", "LOCALHOST."])
def test_a_key_may_travel_in_plain_text_on_this_machine(host: str) -> None:
    assert endpoint("plain", base_url=f"http://{host}:8000/v1", api_key="mine").key == "mine"


def test_a_name_is_not_looked_up_to_find_out_whether_it_is_this_machine() -> None:
    assert not is_loopback("localhost.example.com")
    assert not is_loopback("my-own-machine")


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("localhost:8000/v1", "must be the address of a server"),
        ("ftp://host/v1", "must be the address of a server"),
        ("http://", "must be the address of a server"),
        ("http://host:99999/v1", "must be the address of a server.*ort"),
        ("http://[::1/v1", "it is malformed"),
        ("http://user:SECRET@host/v1", "must not contain a user or a password"),
        ("http://host/v1?key=SECRET", "must end with a path"),
        ("http://host/v1#SECRET", "must end with a path"),
        ("http://host/v1;SECRET", "must end with a path"),
        ("http://host\\@evil.example/v1", "must not contain a user|must be the address"),
        ("http://ho st/v1", "must be the address of a server"),
        ("http://host/v1\n", "must be the address of a server"),
        ("http://" + "h" * 3000, "must be the address of a server"),
    ],
)
def test_a_wrong_address_is_refused_without_its_secrets(url: str, match: str) -> None:
    with pytest.raises(ValidationError, match=match) as caught:
        endpoint("plain", base_url=url)
    assert "SECRET" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_wrong_address_in_a_variable_names_the_variable() -> None:
    with pytest.raises(ValidationError, match="VLLM_BASE_URL must be the address"):
        endpoint("vllm", {"VLLM_BASE_URL": "nowhere"})


@pytest.mark.parametrize("key", ["a b", "ä", "x\n", "k" * 20_000])
def test_a_key_that_cannot_be_a_header_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValidationError, match="api_key must be a key") as caught:
        endpoint("plain", base_url="https://h/v1", api_key=key)
    assert key not in str(caught.value)


def test_the_host_of_an_address_finds_its_provider() -> None:
    assert provider_at("https://api.groq.com/openai/v1") is PROVIDERS["groq"]
    assert provider_at("https://api.groq.com.evil.example/openai/v1") is PLAIN
    assert provider_at("http://localhost:11434/v1") is PLAIN
    assert provider_at(None) is PROVIDERS["openai"]


def test_a_key_does_not_show_itself() -> None:
    assert "key-of-openai" not in repr(endpoint("openai", KEYS))
