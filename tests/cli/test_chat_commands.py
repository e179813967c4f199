"""The commands of ``talu chat``, in a chat whose messages are piped in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talu.backends.scripted import ScriptedModel
from talu.cli import options
from talu.client import Client
from talu.profile import Profile
from talu.router.spec import ModelSpec

Scripted = Callable[..., ScriptedModel]
Talu = Callable[..., Any]
CHAT = ["chat", "--model", "m"]


def said(model: ScriptedModel, request: int = -1) -> list[str]:
    return [message["content"] for message in model.requests[request].messages or ()]


def add(a: int, b: int) -> int:
    """Add two numbers.

    Also large ones.
    """
    return a + b


def test_undo_takes_back_the_last_message_and_its_answer(talu: Talu, scripted: Scripted) -> None:
    model = scripted("one", more=[["two"], ["three"]])
    outcome = talu(*CHAT, "-s", "S", stdin="a\nb\n/undo\nc\n")
    assert said(model) == ["S", "a", "one", "c"]
    assert outcome.err == "talu: took back: b\n"


def test_there_is_nothing_to_take_back_at_first(talu: Talu, scripted: Scripted) -> None:
    scripted("one")
    outcome = talu(*CHAT, "-s", "S", stdin="/undo\n")
    assert (outcome.status, outcome.err) == (1, "talu: there is no message to take back\n")


def test_settings_are_shown_changed_and_reset(talu: Talu, scripted: Scripted) -> None:
    model = scripted("one", more=[["two"], ["three"]])
    lines = ["/set temperature 0.5", "/set stop_sequences [\"x\"]", "/set", "a", "/set temperature",
             "b", "/set"]  # fmt: skip
    outcome = talu(*CHAT, "--seed", "3", stdin="\n".join(lines))
    first, second = (request.config.without_none().given for request in model.requests)
    assert (first["temperature"], first["seed"], first["stop_sequences"]) == (0.5, 3, ["x"])
    assert "temperature" not in second
    assert outcome.out == (
        'seed = 3\ntemperature = 0.5\nstop_sequences = ["x"]\none\ntwo\n'
        'seed = 3\nstop_sequences = ["x"]\n'
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("/set temprature 1", "did you mean 'temperature'"),
        ("/set temperature warm", "temperature"),
        ("/set temperature -1", "temperature"),
        ("/save", "name of a file"),
        ("/save no/such/folder/x.md", "No such file"),
        ("/undo everything", "takes no argument"),
        ("/again", "no message to answer again"),
    ],
)
def test_a_command_that_cannot_be_carried_out_says_why(
    talu: Talu, scripted: Scripted, line: str, problem: str
) -> None:
    model = scripted("never asked")
    outcome = talu(*CHAT, stdin=f"{line}\n")
    assert outcome.status in (1, 2)
    assert problem in outcome.err
    assert model.requests == []


def test_an_unknown_command_suggests_one(talu: Talu, scripted: Scripted) -> None:
    scripted("never asked")
    assert "did you mean '/history'" in talu(*CHAT, stdin="/histroy\n").err


def test_a_conversation_is_saved_as_markdown_in_a_new_file(
    talu: Talu, scripted: Scripted, tmp_path: Path
) -> None:
    scripted("one")
    file = tmp_path / "chat.md"
    assert talu(*CHAT, stdin=f"hi\n/save {file}\n").status == 0
    assert file.read_text() == "# Chat\n\nscripted\n\n## User\n\nhi\n\n## Assistant\n\none\n"
    scripted("two")
    again = talu(*CHAT, stdin=f"hi\n/save {file}\n")
    assert "File exists" in again.err
    assert "two" not in file.read_text()


def test_a_fork_goes_on_and_the_original_stays(talu: Talu, scripted: Scripted, home: Path) -> None:
    model = scripted("one", more=[["two"]])
    outcome = talu(*CHAT, "--store", stdin="a\n/fork\nb\n")
    copy, original = Profile().sessions()
    assert copy["parent_session_id"] == original["session_id"]
    assert said(model) == ["a", "one", "b"]
    assert f"going on with the copy {copy['session_id']}" in outcome.err
    assert f"stored as {copy['session_id']}" in outcome.err


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> dict[str, ScriptedModel]:
    """Make the command line open a scripted model of each name."""
    opened: dict[str, ScriptedModel] = {}

    def make(name: str, profile: Profile | None) -> Client:
        opened[name] = ScriptedModel([f"I am {name}."], ["Again."], model=name)
        return Client(ModelSpec(name, opened[name]), profile=profile)

    monkeypatch.setattr(options, "Client", make)
    return opened


@pytest.mark.parametrize("store", [[], ["--store"]], ids=["not stored", "stored"])
def test_another_model_goes_on_with_the_conversation(
    talu: Talu, models: dict[str, ScriptedModel], home: Path, store: list[str]
) -> None:
    lines = "who?\n/model\n/set seed 3\n/model other\n/model\nand you?\n"
    outcome = talu(*CHAT, "-s", "S", *store, stdin=lines)
    assert outcome.out == "I am m.\nm\nother\nI am other.\n"
    assert said(models["other"]) == ["S", "who?", "I am m.", "and you?"]
    assert models["other"].requests[0].config.seed == 3
    assert len(Profile().sessions()) == len(store)


def test_tools_and_tokens_are_shown(
    talu: Talu, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talu.cli.tools._function", lambda name: add)
    outcome = talu("chat", "-m", "talu/pocket", "--tool", "a:b", stdin="/tools\n/tokens\n")
    tools, tokens = outcome.out.splitlines()
    assert tools == "add  Add two numbers."
    assert tokens.endswith(" of 1,024")
    none = talu("chat", "-m", "talu/pocket", stdin="/tools\n")
    assert (none.out, none.err) == (
        "",
        "talu: there are no tools; --tool MODULE:FUNCTION adds one\n",
    )


def test_other_names_of_commands_work_as_well(talu: Talu, scripted: Scripted) -> None:
    model = scripted("one", more=[["two"]])
    outcome = talu(*CHAT, stdin="hi\n/regenerate\n/settings\n/quit\nnever sent\n")
    assert outcome.out == "one\ntwo\n"
    assert len(model.requests) == 2
