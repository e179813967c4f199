"""``talu log``: lists, searches, shows, deletes, exports and imports stored chats."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talu.backends.scripted import ScriptedModel
from talu.cli.transcript import as_markdown, as_text
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
    lines = talu("log", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == [each[:8] for each in stored[::-1]]
    assert talu("log", "list", "--limit", "1").out.splitlines() == lines[:1]


def test_search_finds_the_chats_that_contain_the_words(talu: Talu, stored: list[str]) -> None:
    (line,) = talu("log", "search", "foxes").out.splitlines()
    assert line.startswith(stored[0][:8])
    assert line.endswith("about [foxes]")


def test_show_prints_the_messages_without_control_characters(talu: Talu, stored: list[str]) -> None:
    shown = talu("log", "show", stored[0]).out
    assert shown == "user: about foxes\nassistant: It is red.\n"
    record = json.loads(talu("log", "show", "--json", stored[0]).out)
    assert record["messages"][0] == {"role": "user", "content": "about foxes"}


def test_show_without_an_id_shows_the_latest_chat(talu: Talu, stored: list[str]) -> None:
    assert talu("log", "show").out == talu("log", "show", stored[1]).out
    both = talu("log", "show", *stored).out
    assert both == "\n".join(talu("log", "show", each).out for each in stored)


def test_markdown_has_a_heading_for_each_message(talu: Talu, stored: list[str]) -> None:
    with Client(ModelSpec("scripted", ScriptedModel("a")), profile=Profile()) as client:
        client.chat(session_id=stored[0]).title = "Red\nfoxes"
    title, about, *rest = talu("log", "show", "--markdown", stored[0]).out.split("\n\n")
    assert title == "# Red foxes"
    assert about.endswith(f" · scripted · {stored[0]}")
    assert rest == ["## User", "about foxes", "## Assistant", "It is red.\n"]


def test_json_and_markdown_exclude_each_other(talu: Talu, stored: list[str]) -> None:
    outcome = talu("log", "show", "--json", "--markdown")
    assert (outcome.status, outcome.out) == (2, "")


def test_markdown_and_text_show_reasoning_and_calls() -> None:
    call = {"function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "One.\n\nTwo.",
            "tool_calls": [call],
        },
        {"role": "tool", "name": "add", "content": "```\n3"},
    ]
    text = as_markdown(messages, title=None, about=())
    assert text.split("\n\n") == [
        "# Chat", "## Assistant", "> One.\n>\n> Two.", "Calls `add`:",
        '```json\n{"a": 1}\n```', "## Tool `add`", "````\n```\n3\n````\n",
    ]  # fmt: skip
    assert as_text(messages) == 'assistant: calls add({"a": 1})\ntool: ```\n3\n'


def test_a_list_can_be_read_by_programs(talu: Talu, stored: list[str]) -> None:
    for verb in (["list"], ["search", "about"]):
        lines = talu("log", *verb, "--json").out.splitlines()
        assert [json.loads(line)["session_id"] for line in lines] == stored[::-1]


def test_a_short_id_is_as_long_as_it_takes_to_name_one_chat(talu: Talu, home: Path) -> None:
    ids = [f"01234567-89ab-4{end}-8000-000000000000" for end in ("aaa", "bbb")]
    ids += ["89abcdef-0123-4567-89ab-0123456789ab", "chosen-by-a-program"]
    with Client(ModelSpec("m", ScriptedModel("a")), profile=Profile()) as client:
        for name in ids:
            client.chat(session_id=name).title = name
    shown = [line.split()[0] for line in talu("log", "list").out.splitlines()[::-1]]
    assert shown == ["01234567-89ab-4a", "01234567-89ab-4b", "89abcdef", "chosen-by-a-program"]
    assert [talu("log", "show", name).status for name in shown] == [0] * 4


def test_a_pager_is_used_on_a_terminal_only(
    talu: Talu, stored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER", "tr a-z A-Z")
    assert "about foxes" in talu("log", "show", stored[0], stdin=b"").out
    screen, inner = pty.openpty()
    command = [sys.executable, "-m", "talu", "log", "show", stored[0]]
    with open(inner, "r+b", buffering=0) as terminal:
        subprocess.run(command, stdin=terminal, stdout=terminal, check=True, timeout=60)
    assert b"ABOUT FOXES" in os.read(screen, 4096)
    os.close(screen)


def test_show_changes_nothing(talu: Talu, stored: list[str]) -> None:
    before = Profile().sessions()
    talu("log", "show", stored[0])
    assert Profile().sessions() == before


@pytest.mark.parametrize("verb", [("delete", "--yes"), ("show",)])
def test_an_empty_id_names_no_chat(talu: Talu, stored: list[str], verb: tuple[str, ...]) -> None:
    result = talu("log", *verb, "")
    assert result.status == 2
    assert "The ID is empty" in result.err
    assert len(Profile().sessions()) == len(stored)


def test_delete_asks_before_it_removes_the_named_chat(talu: Talu, stored: list[str]) -> None:
    refused = talu("log", "delete", stored[0], stdin="")
    assert refused.status == 2
    assert "--yes" in refused.err
    assert len(Profile().sessions()) == 2
    assert talu("log", "delete", "--yes", stored[0]).status == 0
    assert [record["session_id"] for record in Profile().sessions()] == stored[1:]


def test_an_export_can_be_imported_elsewhere(talu: Talu, stored: list[str], tmp_path: Path) -> None:
    file = str(tmp_path / "chats.jsonl")
    assert talu("log", "export", file).status == 0
    assert talu("log", "import", file, "--profile", "other").status == 0
    imported = {record["session_id"] for record in Profile("other").sessions()}
    assert imported == set(stored)
    again = talu("log", "export", file)
    assert (again.status, again.err.count("\n")) == (1, 1)


def test_list_shows_the_beginning_of_the_first_question_of_an_untitled_chat(
    talu: Talu, stored: list[str]
) -> None:
    lines = talu("log", "list").out.splitlines()
    assert [line.split("  ")[2] for line in lines] == ["about hens", "about foxes"]
    with Client(ModelSpec("m", ScriptedModel("a")), profile=Profile()) as client:
        chat = client.chat(system="S").append_hidden("user", "a secret")
        chat.send("Why\x1b]0;\x07 is\nthe sky " + "blue " * 1000)
    shown = talu("log", "list").out.splitlines()[0].split("  ")[2]
    assert shown == ("Why]0; is the sky " + "blue " * 100)[:59] + "…"
    with Client(ModelSpec("m", ScriptedModel("a")), profile=Profile()) as client:
        client.chat(session_id=chat.session_id).title = "The sky"
    assert talu("log", "list").out.splitlines()[0].endswith("  The sky")


@pytest.mark.parametrize("verb", [("list",), ("show", "a"), ("delete", "a"), ("export", "x.jsonl")])
def test_a_profile_that_does_not_exist_is_an_error(
    talu: Talu, stored: list[str], verb: tuple[str, ...], home: Path
) -> None:
    result = talu("log", *verb, "-p", "nope")
    assert (result.status, result.out) == (1, "")
    assert result.err == (
        "talu: There is no profile 'nope', because no chat has been stored in it; "
        "the profiles are default.\n"
    )
    assert "did you mean 'default'" in talu("log", *verb, "-p", "defualt").err
    assert not (home / ".talu" / "db" / "nope").exists()


def test_a_listing_before_the_first_chat_is_empty_and_succeeds(talu: Talu, home: Path) -> None:
    result = talu("log", "list")
    assert (result.status, result.out) == (0, "")
    assert result.err == "talu: the profile 'default' has no chats\n"
    assert list(home.iterdir()) == []


def test_an_empty_listing_says_that_it_is_empty(talu: Talu, stored: list[str]) -> None:
    result = talu("log", "search", "crocodile")
    assert (result.status, result.out) == (0, "")
    assert "the profile 'default' has no chats that contain all these words" in result.err
    talu("log", "delete", "--yes", *stored)
    assert "the profile 'default' has no chats\n" in talu("log", "list").err


def test_a_file_that_cannot_be_imported_is_a_failure_and_not_wrong_usage(
    talu: Talu, stored: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "chats.jsonl"
    assert talu("log", "import", str(file)).status == 1
    file.write_text("no export")
    assert talu("log", "import", str(file)).status == 1
    file.unlink()
    talu("log", "export", str(file))
    again = talu("log", "import", str(file))
    assert again.status == 1
    assert "already exists" in again.err


def test_one_chat_is_counted_in_the_singular(talu: Talu, stored: list[str], tmp_path: Path) -> None:
    talu("log", "delete", "--yes", stored[0])
    file = str(tmp_path / "chats.jsonl")
    assert "exported 1 chat to" in talu("log", "export", file).err
    assert "imported 1 chat into" in talu("log", "import", file, "-p", "other").err
