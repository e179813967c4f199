"""The router opens, shares and closes the backends of named models."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from talu import aio
from talu.backends.scripted import ScriptedModel
from talu.client import Client
from talu.exceptions import ModelNotFoundError, StateError, ValidationError
from talu.router import LocalBackend, ModelSpec, OpenAICompatibleBackend, Router
from talu.router.router import BACKENDS
from talu.sources.resolve import BUNDLED_FOLDER


def scripted(*names: str) -> Router:
    return Router([ModelSpec(name, ScriptedModel(model=name)) for name in names])


def test_the_first_model_is_the_default_until_another_is_set() -> None:
    router = scripted("a", "b")
    assert (router.models, router.default_model) == (["a", "b"], "a")
    assert router.backend().model == "a"
    assert router.backend("b").model == "b"
    router.default_model = "b"
    assert router.backend().model == "b"
    assert Router(["a", "b"], "b").default_model == "b"


@pytest.mark.parametrize("name", [None, "", "c", 3])
def test_the_default_is_one_of_the_models(name) -> None:
    router = scripted("a", "b")
    with pytest.raises(ValidationError, match=r"not available here.*the models are 'a', 'b'"):
        router.default_model = name
    assert router.default_model == "a"


@pytest.mark.parametrize("name", ["c", "openai", 3])
def test_an_unknown_name_is_refused_with_the_known_ones(name) -> None:
    router = scripted("alpha", "beta")
    for use in (router.backend, router.name_of, lambda n: setattr(router, "default_model", n)):
        with pytest.raises(ValidationError, match=r"not available here.*'alpha', 'beta'"):
            use(name)


def test_the_error_for_a_misspelt_name_suggests_the_nearest() -> None:
    with pytest.raises(ValidationError, match="did you mean 'alpha'"):
        scripted("alpha", "beta").backend("alpa")


def test_the_same_name_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="'a' is given twice"):
        Router(["a", "a"])


def test_one_model_in_two_places_has_two_names() -> None:
    first, second = ScriptedModel("a"), ScriptedModel("b")
    router = Router([ModelSpec("m", first), ModelSpec("m", second, name="other")], "other")
    assert router.models == ["m", "other"]
    assert (router.backend("m"), router.backend()) == (first, second)
    assert [(target.model, target.name) for target in router.targets] == [
        ("m", "m"),
        ("other", "m"),
    ]


def test_an_answer_has_the_name_of_its_model() -> None:
    specs = [ModelSpec("talu/pocket", name="a"), ModelSpec("talu/pocket", name="b")]
    with Client(specs) as client:
        answers = [client.ask("Hi", name, max_tokens=1) for name in client.models]
    assert [answer.model for answer in answers] == ["a", "b"]


def test_the_error_for_an_unknown_scheme_hides_the_password() -> None:
    with pytest.raises(ValidationError, match="is an address") as caught:
        Router("https://me:secret@host/x?key=secret").backend()
    assert "secret" not in repr((caught.value, caught.value.details))


@pytest.mark.parametrize("name", ["", " ", 3, "x" * 201, "a\nb"])
def test_a_name_that_cannot_be_used_is_refused(name) -> None:
    with pytest.raises(ValidationError, match="the name of a model must be text of 1 to 200"):
        Router(ModelSpec("m", name=name))


def test_a_provider_with_another_protocol_than_the_backend_is_refused() -> None:
    backend = OpenAICompatibleBackend(base_url="http://localhost:1/v1")
    for ref in ("anthropic::claude", "native::x"):
        with pytest.raises(ValidationError, match="exclude each other") as caught:
            Router(ModelSpec(ref, backend)).resolve()
        assert caught.value.code == "AMBIGUOUS_BACKEND"
    for ref, provider in (("vllm::x", "vllm"), ("x", "compatible"), ("openai::x", "openai")):
        target = Router(ModelSpec(ref, backend)).resolve()
        assert (target.provider, target.name) == (provider, "x")


def test_nothing_is_opened_before_it_is_used() -> None:
    Router(["/no/such/folder"])


def test_a_missing_folder_is_an_error_when_it_is_used() -> None:
    with pytest.raises(ModelNotFoundError, match="/no/such/folder"):
        Router(["/no/such/folder"]).backend()


@pytest.mark.parametrize(
    "model", ["openai::gpt-4o", ModelSpec("gpt-4o", OpenAICompatibleBackend())]
)
def test_the_error_for_a_missing_key_names_its_variable(model, monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValidationError, match="set the variable OPENAI_API_KEY") as caught:
        Router([model]).backend()
    assert caught.value.code == "MISSING_KEY"


def test_an_object_that_is_not_a_backend_is_refused() -> None:
    with pytest.raises(ValidationError, match="is not a backend: it is a str"):
        Router([ModelSpec("a", "cuda")]).backend()


def test_options_of_a_local_model_are_checked_when_it_is_opened() -> None:
    with pytest.raises(ValidationError, match="gpu_layers"):
        Router([ModelSpec("talu/pocket", LocalBackend(gpu_layers=3))]).backend()


def test_closing_closes_open_backends_and_refuses_to_open_others() -> None:
    opened, unopened = ScriptedModel(), ScriptedModel()
    router = Router([ModelSpec("a", opened), ModelSpec("b", unopened)])
    router.backend("a")
    router.close()
    router.close()
    assert (opened.closed, unopened.closed) == (True, False)
    with pytest.raises(StateError, match="has been closed") as caught:
        router.backend("b")
    assert caught.value.code == "STATE_CLOSED"
    assert (router.models, router.default_model) == (["a", "b"], "a")


def test_an_awaited_backend_is_opened_in_a_thread_only_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    router = scripted("a")
    threads: list[object] = []
    to_thread = asyncio.to_thread

    async def counted(*arguments: Any, **options: Any) -> Any:
        threads.append(arguments)
        return await to_thread(*arguments, **options)

    monkeypatch.setattr(aio, "to_thread", counted)
    first, second = (asyncio.run(router.abackend()) for _ in range(2))
    assert first is second is router.backend()
    assert len(threads) == 1
    router.close()
    with pytest.raises(StateError, match="closed"):
        asyncio.run(router.abackend())


OLLAMA = "http://localhost:11434/v1"


def test_a_target_describes_its_model_without_opening_it() -> None:
    options, endpoint = LocalBackend(num_threads=1), OpenAICompatibleBackend("http://here/v1")
    answering = ScriptedModel()
    router = Router(
        [
            "./nowhere",
            ModelSpec("native::a/b", options),
            "ollama::llama3",
            ModelSpec("gpt-4o", endpoint),
            ModelSpec("scripted", answering),
        ]
    )
    assert [
        (t.model, t.backend, t.provider, t.name, t.location, t.is_open) for t in router.targets
    ] == [
        ("./nowhere", LocalBackend(), None, "./nowhere", None, False),
        ("native::a/b", options, None, "a/b", None, False),
        ("ollama::llama3", OpenAICompatibleBackend(), "ollama", "llama3", OLLAMA, False),
        ("gpt-4o", endpoint, "compatible", "gpt-4o", "http://here/v1", False),
        ("scripted", answering, None, "scripted", None, False),
    ]


def test_an_open_target_names_its_folder() -> None:
    with Router(["talu/pocket"]) as router:
        router.backend()
        target = router.resolve()
        assert (target.location, target.is_open) == (str(BUNDLED_FOLDER), True)
    assert not router.resolve().is_open


def test_resolving_an_invalid_reference_raises() -> None:
    router = Router(["opnai::gpt-4o"])
    with pytest.raises(ValidationError, match="did you mean 'openai'"):
        router.resolve()
    with pytest.raises(ValidationError, match="not available here"):
        router.resolve("gpt-4o")


def test_a_router_is_a_context_manager() -> None:
    model = ScriptedModel()
    with Router([ModelSpec("a", model)]) as router:
        router.backend()
    assert model.closed


def test_concurrent_threads_get_the_same_backend() -> None:
    router = Router(["talu/pocket"])
    barrier = threading.Barrier(4)

    def open_it(_: int) -> object:
        barrier.wait()
        return router.backend()

    with router, ThreadPoolExecutor(4) as pool:
        assert len(set(map(id, pool.map(open_it, range(4))))) == 1


@dataclass(frozen=True)
class ToyOptions:
    """Options of a backend that nobody knows."""

    answer: str


class ToyModel(ScriptedModel):
    """A backend in a module of its own: what a line in the router's table names."""

    def __init__(self, ref: str, options: ToyOptions, *, name: str, offline: bool) -> None:
        super().__init__(f"{options.answer} from {ref}", model=name)


def test_a_new_backend_is_a_module_and_a_line_in_the_table(monkeypatch) -> None:
    monkeypatch.setitem(BACKENDS, ToyOptions, (__name__, "ToyModel"))
    with Client(ModelSpec("some/thing", ToyOptions("Hello"), name="toy")) as client:
        answer = client.ask("Hi")
    assert (answer, answer.model) == ("Hello from some/thing", "toy")
