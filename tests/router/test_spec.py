"""Model specs, and the model options among the arguments of a client."""

import copy
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path
from typing import Any

import pytest

from talu.client import Client
from talu.exceptions import TaluError, ValidationError
from talu.router import LocalBackend, ModelSpec, OpenAICompatibleBackend
from talu.router.reference import split_reference
from talu.router.spec import backend_from, specs_from

REMOTE = OpenAICompatibleBackend(base_url="http://h", headers={"a": "b"}, extra_params={"c": 1})


def test_specs_are_values() -> None:
    spec = ModelSpec("a", LocalBackend(num_threads=2))
    assert spec == ModelSpec("a", LocalBackend(num_threads=2))
    assert hash(ModelSpec("a", REMOTE)) == hash(ModelSpec("a", REMOTE))
    with pytest.raises(FrozenInstanceError):
        spec.ref = "b"


def test_a_name_alone_has_no_backend() -> None:
    assert backend_from({"use_mmap": None}, {"api_key": None}) is None
    assert specs_from("a") == [ModelSpec("a")]


def test_flat_arguments_apply_to_every_model_without_its_own_backend() -> None:
    models = ["a", ModelSpec("b")]
    local = LocalBackend(gpu_layers=0, use_mmap=False)
    assert backend_from({"gpu_layers": 0, "use_mmap": False}, {}) == local
    assert specs_from(models, local) == [
        ModelSpec("a", local),
        ModelSpec("b", local),
    ]
    remote = OpenAICompatibleBackend(max_retries=0)
    assert backend_from({}, {"max_retries": 0}) == remote
    assert specs_from(models, remote) == [
        ModelSpec("a", remote),
        ModelSpec("b", remote),
    ]


REMOTE_ARGUMENTS: list[dict[str, Any]] = [
    {"api_key": "k"},
    {"org_id": "o"},
    {"timeout_ms": 5000},
    {"max_retries": 1},
    {"on_unsupported": "warn"},
    {"allow_insecure": False},
]
LOCAL_NAMES = ["talu/pocket", "./m", "../m", "~/m", "/m", "m.gguf", "here", ".", "Qwen/Qwen3-0.6B"]
LOCAL_NAMES += ["org/name-GGUF:Q4_K_M", "native::gpt-4o"]


@pytest.mark.parametrize("arguments", REMOTE_ARGUMENTS, ids=lambda given: next(iter(given)))
@pytest.mark.parametrize("name", LOCAL_NAMES)
def test_remote_arguments_do_not_make_a_name_of_a_local_model_one_of_a_server(
    name: str, arguments: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(ValidationError, match="name the provider, as in 'openai::") as caught:
        Client(["gpt-4o", name] if "api_key" in arguments else name, **arguments)
    assert caught.value.code == "AMBIGUOUS_BACKEND"
    with pytest.raises(ValidationError, match="is a model on this machine"):
        Client(Path(name), base_url="http://localhost:1/v1", **arguments)


@pytest.mark.parametrize("arguments", REMOTE_ARGUMENTS, ids=lambda given: next(iter(given)))
def test_a_name_without_a_slash_is_one_of_openai_with_the_arguments_of_the_contract(
    arguments: Any,
) -> None:
    if arguments.keys() & {"on_unsupported", "allow_insecure"}:
        with pytest.raises(ValidationError, match="name the provider"):
            Client("gpt-4o", **arguments)
    else:
        assert Client("gpt-4o", **arguments).router.resolve().provider == "openai"


@pytest.mark.parametrize("arguments", REMOTE_ARGUMENTS, ids=lambda given: next(iter(given)))
@pytest.mark.parametrize("name", ["talu/pocket", "/models/m", "Qwen/Qwen3-0.6B", "gpt-4o"])
def test_a_provider_or_an_address_makes_any_name_one_of_a_server(name: str, arguments: Any) -> None:
    url = "http://localhost:1/v1"
    assert Client(name, base_url=url, **arguments).router.resolve().location == url
    assert Client(f"vllm::{name}", **arguments).router.resolve().provider == "vllm"


def test_a_model_with_its_own_backend_keeps_it_and_a_warning_says_so() -> None:
    spec = ModelSpec("a", LocalBackend())
    with pytest.warns(UserWarning, match="'a' has its own backend: the client's LocalBackend"):
        assert specs_from(spec, LocalBackend(num_threads=2)) == [spec]


def test_the_warning_points_at_the_line_that_creates_the_client() -> None:
    with pytest.warns(UserWarning, match="has its own backend") as caught:
        Client(ModelSpec("a", LocalBackend()), num_threads=2)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ([], "at least one model"),
        (3, "must be a name, a path or a ModelSpec, got an object of type int"),
        (None, "must be a name, a path or a ModelSpec"),
        ([None], "must be a name, a path or a ModelSpec"),
        (b"folder", "must be a name, a path or a ModelSpec"),
        ("", "text that is not empty"),
        (ModelSpec("  "), "text that is not empty"),
        (ModelSpec(3), "text that is not empty"),
    ],
)
def test_values_that_are_not_models_are_refused(model, match) -> None:
    with pytest.raises(ValidationError, match=match) as caught:
        specs_from(model)
    assert caught.value.details["param"] == "model"


def test_local_and_remote_arguments_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match=r"local arguments \(use_mmap\) and remote ones \(ap"):
        backend_from({"use_mmap": False}, {"api_key": "k"})


@pytest.mark.parametrize(
    ("path", "ref"),
    [
        ("/models/a", "/models/a"),
        ("models/a", "./models/a"),
        ("talu/pocket", "./talu/pocket"),
        ("./a", "./a"),
        ("../a", "../a"),
        ("~/a", "~/a"),
        (".", "."),
        ("openai::x", "./openai::x"),
        ("a\udcff", "./a\udcff"),
    ],
)
def test_a_path_is_a_folder_and_never_a_hub_id_or_a_remote_model(path, ref) -> None:
    assert ModelSpec(Path(path)) == ModelSpec(ref)
    assert specs_from(Path(path)) == specs_from([Path(path)]) == [ModelSpec(ref)]
    assert split_reference(ref) == (None, ref)
    with Client(Path(path)) as client:
        assert client.models == [ref]
        assert client.router.name_of(Path(path)) == ref


def test_a_path_of_bytes_is_refused() -> None:
    class Bytes:
        def __fspath__(self) -> bytes:
            return b"folder"

    with pytest.raises(ValidationError, match="must be text, not bytes"):
        specs_from(Bytes())


# Secrets.

CANARY = "CANARY-5f1d"
SECRETIVE = {
    "api_key": {"api_key": CANARY},
    "password": {"base_url": f"https://user:{CANARY}@host:8000/v1"},
    "password without a scheme": {"base_url": f"user:{CANARY}@host/v1"},
    "password after one slash": {"base_url": f"https:/user:{CANARY}@host/v1"},
    "fragment": {"base_url": f"https://host/v1#{CANARY}"},
    "password with a slash": {"base_url": f"https://user:a/{CANARY}@host/v1"},
    "query": {"base_url": f"https://host/v1?api-key={CANARY}"},
    "extra_params": {"extra_params": {"user": CANARY, "nested": {"a": [CANARY]}}},
    "headers": {"headers": {"Authorization": CANARY}},
    "key as the organisation": {"org_id": CANARY, "headers": {"a": "b"}},
    "key as the time limit": {"timeout_ms": CANARY, "headers": {"a": "b"}},
    "bytes as the address": {"base_url": CANARY.encode()},
}
secretive = pytest.mark.parametrize("fields", SECRETIVE.values(), ids=SECRETIVE)


def every_error(backend: OpenAICompatibleBackend) -> Iterator[BaseException]:
    """Errors of all kinds that a model with this backend can raise here."""
    client = Client([ModelSpec("a", backend), ModelSpec("b", backend)])
    wrong: Any = backend
    uses: list[Callable[[], object]] = [
        lambda: client.ask("hi"),
        lambda: client.embed("hi"),
        lambda: client.ask("hi", model=wrong),
        lambda: client.router.backend("c"),
        lambda: client.capabilities(wrong),
        lambda: Client({"model": "a", "backend": backend}),
        lambda: Client([ModelSpec(wrong)]),
        lambda: Client(wrong),
        lambda: Client([ModelSpec("a", backend), ModelSpec("a", backend)]),
        lambda: pickle.dumps(backend),
        lambda: pickle.dumps(ModelSpec("a", backend)),
        lambda: pickle.dumps(client),
    ]
    for use in uses:
        with pytest.raises(TaluError) as caught:
            use()
        yield caught.value


@secretive
def test_no_error_log_repr_or_pickle_contains_a_secret(fields, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    backend = OpenAICompatibleBackend(**fields)
    client = Client(ModelSpec("a", backend))
    shown = [repr(backend), str(backend), f"{[backend]}", repr(ModelSpec("a", backend))]
    shown += [repr(client), repr(client.router), repr(client.router.targets)]
    shown += [str(client.router.resolve().location), repr(client.chat())]
    for error in every_error(backend):
        chain = traceback.format_exception(error)
        shown += [repr(error), str(error), repr(error.details), *chain]
    assert [text for text in [*shown, caplog.text] if CANARY in text] == []


@pytest.mark.parametrize("name", ["api_key", "org_id", "headers", "extra_params"])
def test_the_fields_of_a_backend_as_a_dictionary_print_without_their_secrets(name: str) -> None:
    value = CANARY if name in ("api_key", "org_id") else {"a": CANARY}
    fields = asdict(OpenAICompatibleBackend(**{name: value}))
    assert CANARY not in repr(fields)
    assert fields[name] == value


@pytest.mark.parametrize("name", ["api_key", "base_url", "org_id", "timeout_ms", "max_retries"])
def test_a_secret_of_a_wrong_type_or_in_a_wrong_place_is_not_shown(name: str) -> None:
    wrong = CANARY if name in ("timeout_ms", "max_retries") else CANARY.encode()
    with pytest.raises(ValidationError, match=f"{name} must be .* got a value of type") as caught:
        Client("a", **{name: wrong})
    assert CANARY not in f"{caught.value!r}{caught.value.details}"


def test_flat_arguments_are_not_shown_either() -> None:
    client = Client("gpt-4o", base_url=f"http://u:{CANARY}@h/v1", api_key=CANARY)
    assert CANARY not in repr(client) + repr(client.router.targets)
    with pytest.raises(ValidationError) as caught:
        Client("gpt-4o", api_key=CANARY, num_threads=1)
    assert CANARY not in f"{caught.value!r}{caught.value.details}"


def test_a_backend_shows_everything_else() -> None:
    backend = OpenAICompatibleBackend(
        "http://me:pw@host/v1?key=1", "k", max_retries=0, extra_params={"user": "x"}
    )
    assert repr(backend) == (
        "OpenAICompatibleBackend(base_url='http://***@host/v1?***', api_key=***, org_id=None, "
        "timeout_ms=None, max_retries=0, extra_params={'user': ***}, headers=None)"
    )
    plain = OpenAICompatibleBackend("http://host:8000/v1", timeout_ms=5)
    assert "base_url='http://host:8000/v1'" in repr(plain)


def test_a_backend_without_secrets_is_pickled_and_every_one_is_copied() -> None:
    plain = OpenAICompatibleBackend("http://host/v1", timeout_ms=9)
    assert pickle.loads(pickle.dumps(ModelSpec("a", plain))) == ModelSpec("a", plain)
    assert copy.deepcopy(ModelSpec("a", REMOTE)) == ModelSpec("a", REMOTE)
    assert copy.copy(REMOTE) == REMOTE
