"""The error for an attribute that does not exist names the right one, also for other libraries."""

import copy
import pickle
import re
from operator import attrgetter
from typing import Any

import pytest

import talu
from talu import AsyncClient, Client, ModelSpec, Profile, ScriptedModel, StopFlag
from talu.other_names import OTHER_NAMES

CLIENT = Client(ModelSpec("m", ScriptedModel("a")))
RESPONSE = CLIENT.ask("q")
TARGETS = {  # class of the table: an object of it, and its name in the suggestions
    "talu": (talu, "talu"),
    "BaseClient": (CLIENT, "client"),
    "Conversation": (CLIENT.chat(), "chat"),
    "Answer": (RESPONSE, "response"),
    "Profile": (Profile("names"), "profile"),
    "StopFlag": (StopFlag(), "flag"),
}
NAMES = [(kind, name) for kind, names in OTHER_NAMES.items() for name in names]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_a_name_of_another_library_is_explained_and_does_not_exist(kind: str, name: str) -> None:
    target, _ = TARGETS[kind]
    assert not hasattr(target, name)
    with pytest.raises(AttributeError, match=f"{name}'; use ") as caught:
        attrgetter(name)(target)
    assert OTHER_NAMES[kind][name] in str(caught.value)


def test_every_suggestion_exists() -> None:
    known = {name: target for target, name in TARGETS.values()}
    for text in (text for names in OTHER_NAMES.values() for text in names.values()):
        for path in re.findall(r"\b(?:talu|client|chat|response|profile|flag)\.[a-z_.A-Z]+", text):
            start, *rest = path.rstrip(".").split(".")
            assert attrgetter(".".join(rest))(known[start]) is not known


@pytest.mark.parametrize(
    ("target", "name", "nearest"),
    [
        (CLIENT, "aks", "ask"),
        (AsyncClient("m"), "embed_bach", "embed_batch"),
        (CLIENT.chat(), "mesages", "messages"),
        (CLIENT.hooks, "ad", "add"),
        (RESPONSE, "finish_reson", "finish_reason"),
        (talu, "Clint", "Client"),
    ],
)
def test_a_misspelt_name_gets_the_nearest(target: Any, name: str, nearest: str) -> None:
    with pytest.raises(AttributeError, match=f"{name}'; did you mean '{nearest}'"):
        attrgetter(name)(target)


def test_private_names_are_not_explained() -> None:
    for target in (CLIENT, RESPONSE, CLIENT.chat()):
        with pytest.raises(AttributeError, match=r"'_generate'$"):
            attrgetter("_generate")(target)


def test_an_answer_is_still_copied_and_pickled() -> None:
    assert copy.deepcopy(RESPONSE) == pickle.loads(pickle.dumps(RESPONSE)) == "a"
