"""Model specs, and the flat arguments of a client."""

from dataclasses import FrozenInstanceError

import pytest

from talu.client import Client
from talu.exceptions import ValidationError
from talu.router import LocalBackend, ModelSpec, OpenAICompatibleBackend
from talu.router.spec import backend_from, specs_from

REMOTE = OpenAICompatibleBackend(base_url="http://h", headers={"a": "b"}, extra_params={"c": 1})


def test_specs_are_values() -> None:
    spec = ModelSpec("a", LocalBackend(num_threads=2))
    assert spec == ModelSpec("a", LocalBackend(num_threads=2))
    assert hash(ModelSpec("a", REMOTE)) == hash(ModelSpec("a", REMOTE))
    with pytest.raises(FrozenInstanceError):
        spec.ref = "b"


def test_secrets_are_not_shown() -> None:
    shown = repr(ModelSpec("a", OpenAICompatibleBackend(api_key="K3Y", headers={"x": "K3Y"})))
    assert "K3Y" not in shown


def test_a_name_alone_has_no_backend() -> None:
    assert backend_from({"use_mmap": None}, {"api_key": None}) is None
    assert specs_from("a") == [ModelSpec("a")]


def test_flat_arguments_apply_to_every_model_without_a_backend_of_its_own() -> None:
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


def test_a_model_with_its_own_backend_keeps_it_and_a_warning_says_so() -> None:
    spec = ModelSpec("a", LocalBackend())
    with pytest.warns(UserWarning, match="'a' has its own backend: the client's LocalBackend"):
        assert specs_from(spec, LocalBackend(num_threads=2)) == [spec]


def test_the_warning_points_at_the_line_that_makes_the_client() -> None:
    with pytest.warns(UserWarning, match="has its own backend") as caught:
        Client(ModelSpec("a", LocalBackend()), num_threads=2)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ([], "at least one model"),
        (3, "must be a name or a ModelSpec, got 3"),
        (None, "must be a name or a ModelSpec"),
        ([None], "must be a name or a ModelSpec"),
        ("", "text that is not empty"),
        (ModelSpec("  "), "text that is not empty"),
        (ModelSpec(3), "text that is not empty"),
    ],
)
def test_what_is_not_a_model_is_refused(model, match) -> None:
    with pytest.raises(ValidationError, match=match) as caught:
        specs_from(model)
    assert caught.value.details["param"] == "model"


def test_local_and_remote_arguments_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match=r"local arguments \(use_mmap\) and remote ones \(ap"):
        backend_from({"use_mmap": False}, {"api_key": "k"})
