"""``talu chats``: lists, shows, deletes, exports and imports stored chats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talu.backends.scripted import ScriptedModel
from talu.client import Client
from talu.profile import Profile
from talu.router import ModelSpec

Talu = Callable[..., Any]


@pytest.fixture
def stored(talu: Talu, scripted: Callable[..., ScriptedModel], home: Path) -> list[str]:
    """The ids of two stored chats, the first one stored first."""
    ids: list[str] = []
    for question in ("about foxes", "about hens"):
        scripted("It is \x1b[31mred.")
        talu("chat", "--store", "--model", "m", stdin=question + "\n")
        ids.append(Profile().sessions()[0]["session_id"])
    return ids


def test_list_has_a_line_for_each_chat_the_latest_first(talu: Talu, stored: list[str]) -> None:
    lines = talu("chats", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == stored[::-1]
    assert talu("chats", "list", "--limit", "1").out.splitlines() == lines[:1]


def test_search_finds_the_chats_that_contain_the_words(talu: Talu, stored: list[str]) -> None:
    (line,) = talu("chats", "list", "--search", "foxes").out.splitlines()
    assert line.startswith(stored[0])
    assert line.endswith("about [foxes]")


def test_show_prints_the_messages_without_control_characters(talu: Talu, stored: list[str]) -> None:
    shown = talu("chats", "show", stored[0]).out
    assert shown == "user: about foxes\nassistant: It is red.\n"
    record = json.loads(talu("chats", "show", "--json", stored[0]).out)
    assert record["messages"][0] == {"role": "user", "content": "about foxes"}


def test_show_changes_nothing(talu: Talu, stored: list[str]) -> None:
    before = Profile().sessions()
    talu("chats", "show", stored[0])
    assert Profile().sessions() == before


@pytest.mark.parametrize("verb", [("delete", "--yes"), ("show",)])
def test_an_empty_id_names_no_chat(talu: Talu, stored: list[str], verb: tuple[str, ...]) -> None:
    result = talu("chats", *verb, "")
    assert result.status == 2
    assert "The ID is empty" in result.err
    assert len(Profile().sessions()) == len(stored)


def test_delete_asks_before_it_removes_the_named_chat(talu: Talu, stored: list[str]) -> None:
    refused = talu("chats", "delete", stored[0], stdin="")
    assert refused.status == 2
    assert "--yes" in refused.err
    assert len(Profile().sessions()) == 2
    assert talu("chats", "delete", "--yes", stored[0]).status == 0
    assert [record["session_id"] for record in Profile().sessions()] == stored[1:]


def test_an_export_can_be_imported_elsewhere(talu: Talu, stored: list[str], tmp_path: Path) -> None:
    file = str(tmp_path / "chats.jsonl")
    assert talu("chats", "export", file).status == 0
    assert talu("chats", "import", file, "--profile", "other").status == 0
    imported = {record["session_id"] for record in Profile("other").sessions()}
    assert imported == set(stored)
    again = talu("chats", "export", file)
    assert (again.status, again.err.count("\n")) == (1, 1)


def test_list_shows_the_beginning_of_the_first_question_of_an_untitled_chat(
    talu: Talu, stored: list[str]
) -> None:
    lines = talu("chats", "list").out.splitlines()
    assert [line.split("  ")[2] for line in lines] == ["about hens", "about foxes"]
    with Client(ModelSpec("m", ScriptedModel("a")), profile=Profile()) as client:
        chat = client.chat(system="S").append_hidden("user", "a secret")
        chat.send("Why\x1b]0;\x07 is\nthe sky " + "blue " * 1000)
    shown = talu("chats", "list").out.splitlines()[0].split("  ")[2]
    assert shown == ("Why]0; is the sky " + "blue " * 100)[:59] + "…"
    with Client(ModelSpec("m", ScriptedModel("a")), profile=Profile()) as client:
        client.chat(session_id=chat.session_id).title = "The sky"
    assert talu("chats", "list").out.splitlines()[0].endswith("  The sky")


@pytest.mark.parametrize("verb", [("list",), ("show", "a"), ("delete", "a"), ("export", "x.jsonl")])
def test_a_profile_that_does_not_exist_is_an_error(
    talu: Talu, stored: list[str], verb: tuple[str, ...], home: Path
) -> None:
    result = talu("chats", *verb, "-p", "nope")
    assert (result.status, result.out) == (1, "")
    assert result.err == (
        "talu: There is no profile 'nope', because no chat has been stored in it; "
        "the profiles are default.\n"
    )
    assert "did you mean 'default'" in talu("chats", *verb, "-p", "defualt").err
    assert not (home / ".talu" / "db" / "nope").exists()


def test_a_listing_before_the_first_chat_is_empty_and_succeeds(talu: Talu, home: Path) -> None:
    result = talu("chats", "list")
    assert (result.status, result.out) == (0, "")
    assert result.err == "talu: the profile 'default' has no chats\n"
    assert list(home.iterdir()) == []


def test_an_empty_listing_says_that_it_is_empty(talu: Talu, stored: list[str]) -> None:
    result = talu("chats", "list", "--search", "crocodile")
    assert (result.status, result.out) == (0, "")
    assert "the profile 'default' has no chats that contain all these words" in result.err
    talu("chats", "delete", "--yes", *stored)
    assert "the profile 'default' has no chats\n" in talu("chats", "list").err


def test_a_file_that_cannot_be_imported_is_a_failure_and_not_wrong_usage(
    talu: Talu, stored: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "chats.jsonl"
    assert talu("chats", "import", str(file)).status == 1
    file.write_text("no export")
    assert talu("chats", "import", str(file)).status == 1
    file.unlink()
    talu("chats", "export", str(file))
    again = talu("chats", "import", str(file))
    assert again.status == 1
    assert "already exists" in again.err


def test_one_chat_is_counted_in_the_singular(talu: Talu, stored: list[str], tmp_path: Path) -> None:
    talu("chats", "delete", "--yes", stored[0])
    file = str(tmp_path / "chats.jsonl")
    assert "exported 1 chat to" in talu("chats", "export", file).err
    assert "imported 1 chat into" in talu("chats", "import", file, "-p", "other").err
