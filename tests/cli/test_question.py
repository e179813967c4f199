"""``talu ask``: the files, the template and the stored chat of a question."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talu.backends.scripted import ScriptedModel
from talu.cli import main, options
from talu.cli.templates import QuestionTemplate
from talu.profile import Profile

Scripted = Callable[..., ScriptedModel]
Talu = Callable[..., Any]
ASK = ["ask", "--model", "m"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands run in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def template(home: Path) -> Callable[..., str]:
    """Write a template of the user; returns its name."""

    def write(text: str, name: str = "short") -> str:
        folder = home / ".talu" / "templates"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.toml").write_text(text)
        return name

    return write


def said(model: ScriptedModel) -> list[str]:
    return [message["content"] for message in model.requests[-1].messages or ()]


def test_files_come_before_the_question_with_their_names(
    talu: Talu, scripted: Scripted, here: Path
) -> None:
    (here / "a.py").write_text("x = 1\n")
    (here / "b.md").write_text("```\ny\n```")
    model = scripted("ok")
    assert talu(*ASK, "Why?", "-f", "a.py", "-f", "b.md").status == 0
    assert said(model) == ["a.py:\n```\nx = 1\n```\n\nb.md:\n````\n```\ny\n```\n````\n\nWhy?"]


def test_files_a_question_and_standard_input_go_together(
    talu: Talu, scripted: Scripted, here: Path
) -> None:
    (here / "a").write_text("x")
    model = scripted("ok")
    assert talu(*ASK, "Why?", "-", "-f", "a", stdin="It fails.\n").status == 0
    assert said(model) == ["a:\n```\nx\n```\n\nWhy?\n\nIt fails."]


def test_a_file_alone_can_be_the_question(talu: Talu, scripted: Scripted, here: Path) -> None:
    (here / "a").write_text("x")
    model = scripted("ok")
    assert talu(*ASK, "-f", "a").status == 0
    assert said(model) == ["a:\n```\nx\n```"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"PNG\0\0", "is a binary file"),
        (b"caf\xe9", "is not UTF-8"),
        (b"x" * 33, "is longer than"),
        (None, "does not exist"),
    ],
    ids=["binary", "latin-1", "too large", "missing"],
)
def test_a_file_that_is_no_text_is_wrong_usage(
    talu: Talu,
    scripted: Scripted,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
    problem: str,
) -> None:
    monkeypatch.setattr("talu.cli.files.MAX_BYTES", 32)
    if content is not None:
        (here / "a").write_bytes(content)
    scripted("never asked")
    outcome = talu(*ASK, "Why?", "-f", "a")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert problem in outcome.err


def test_many_files_are_bounded_together(
    talu: Talu, scripted: Scripted, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talu.cli.files.MAX_BYTES", 32)
    (here / "a").write_text("x" * 20)
    scripted("never asked")
    outcome = talu(*ASK, "Why?", "-f", "a", "-f", "a")
    assert outcome.status == 2
    assert "together" in outcome.err


def test_a_template_has_places_for_the_question_and_for_parameters(
    talu: Talu, scripted: Scripted, template: Callable[..., str]
) -> None:
    name = template('prompt = "In $lang, for $$1: $input"\nsystem = "Be ${mood}."\n')
    model = scripted("ok")
    values = ["--param", "lang", "Welsh", "--param", "mood", "$brief"]
    assert talu(*ASK, "-t", name, *values, "It costs $lang.").status == 0
    assert said(model) == ["Be $brief.", "In Welsh, for $1: It costs $lang."]


def test_a_parameter_that_is_not_given_has_its_default(
    talu: Talu, scripted: Scripted, template: Callable[..., str]
) -> None:
    name = template('prompt = "In $lang: $input"\n[defaults]\nlang = "Welsh"\n')
    model = scripted("ok")
    talu(*ASK, "-t", name, "Hi")
    assert said(model) == ["In Welsh: Hi"]
    model = scripted("ok")
    talu(*ASK, "-t", name, "--param", "lang", "Manx", "Hi")
    assert said(model) == ["In Manx: Hi"]


def test_a_template_of_a_system_message_leaves_the_question_as_it_is(
    talu: Talu, scripted: Scripted, here: Path
) -> None:
    (here / "mine.toml").write_text('system = "Be brief."')
    model = scripted("ok")
    talu(*ASK, "-t", "mine.toml", "Hi $x")
    assert said(model) == ["Be brief.", "Hi $x"]
    model = scripted("ok")
    talu(*ASK, "-t", "./mine.toml", "-s", "Be kind.", "Hi")
    assert said(model) == ["Be kind.", "Hi"]


def test_the_model_of_a_template_comes_after_that_of_the_command_line_only(
    scripted: Scripted, template: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = template('system = "S"\nmodel = "theirs"')
    opened: list[str] = []
    for given in ([], ["-m", "mine"]):
        scripted("ok")
        made = options.Client

        def make(model: str, profile: Any, made: Any = made) -> Any:
            opened.append(model)
            return made(model, profile)

        monkeypatch.setattr(options, "Client", make)
        monkeypatch.setenv("TALU_MODEL", "of the environment")
        assert main.run(["ask", "-t", name, *given, "Hi"]) == 0
    assert opened == ["theirs", "mine"]


def test_a_template_without_a_place_for_a_question_takes_none(
    talu: Talu, scripted: Scripted, template: Callable[..., str]
) -> None:
    name = template('prompt = "Tell a joke."')
    model = scripted("ok")
    assert talu(*ASK, "-t", name, stdin="not read").status == 0
    assert said(model) == ["Tell a joke."]
    outcome = talu(*ASK, "-t", name, "Hi")
    assert outcome.status == 2
    assert "takes no PROMPT" in outcome.err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prompt = ", "is not TOML"),
        ("", "neither a prompt nor a system message"),
        ('prompt = "$input"\nmodle = "m"', "did you mean 'model'"),
        ("prompt = 3", "needs a text that is not empty as prompt, got 3"),
        ('prompt = "a"\ndefaults = "b"', "needs a table of texts as defaults"),
        ('prompt = "a"\ndefaults = {b = 1}', "needs a table of texts as defaults"),
        ('prompt = "5 $"', "begins no placeholder"),
        ('prompt = "$a $b"', "needs --param a VALUE and --param b VALUE"),
    ],
)
def test_a_template_that_is_not_valid_is_wrong_usage(
    talu: Talu, scripted: Scripted, template: Callable[..., str], text: str, problem: str
) -> None:
    scripted("never asked")
    outcome = talu(*ASK, "-t", template(text), stdin="")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert problem in outcome.err


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["-t", "shrt"], "did you mean 'short'"),
        (["-t", "nothing-like-it"], "the templates are short"),
        (["-t", "../short"], "cannot be read"),
        (["-t", "short", "--param", "x", "1"], "has no parameter 'x'; it has none"),
        (["-t", "short", "--param", "input", "1"], "has no parameter 'input'"),
        (["--param", "x", "1"], "--template"),
    ],
)
def test_a_template_or_parameter_that_does_not_exist_is_named(
    talu: Talu, scripted: Scripted, template: Callable[..., str], given: list[str], problem: str
) -> None:
    template('prompt = "$input"')
    scripted("never asked")
    outcome = talu(*ASK, *given, "Hi")
    assert (outcome.status, outcome.out) == (2, "")
    assert problem in outcome.err


def test_a_filled_template_is_filled_once() -> None:
    template = QuestionTemplate(prompt="$input $a", defaults={"a": "$input"})
    assert template.filled("$a", {}) == ("$a $input", None)


def test_a_question_can_be_stored_and_continued(talu: Talu, scripted: Scripted, home: Path) -> None:
    scripted("one")
    first = talu("ask", "--store", "First?", "--model", "scripted")
    (record,) = Profile().sessions()
    assert f"stored as {record['session_id']}" in first.err
    model = scripted("two")
    second = talu("ask", "--continue", "Second?")
    assert (second.status, second.out, second.err) == (0, "two\n", "")
    assert said(model) == ["First?", "one", "Second?"]
    model = scripted("three")
    third = talu("ask", "--session", record["session_id"][:8], "--json", "Third?")
    assert json.loads(third.out)["text"] == "three"
    assert said(model)[-2:] == ["two", "Third?"]
    assert len(Profile().sessions()) == 1


def test_a_question_is_not_stored_unless_requested(
    talu: Talu, scripted: Scripted, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALU_PROFILE", "work")
    scripted("ok")
    talu(*ASK, "Hi")
    assert not list(home.iterdir())
