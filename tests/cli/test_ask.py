"""``talu ask``: what it sends to the model, what it prints, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from talu.backends.scripted import ScriptedModel
from talu.types import Done, FinishReason, Timings, ToolCallEvent, Usage

Scripted = Callable[..., ScriptedModel]
Talu = Callable[..., Any]
CUT_OFF = Done(FinishReason.LENGTH, Usage(5, 2), Timings(), "scripted", notes=("a \x1b[1mnote",))
PROGRAM = """
import os, sys, threading
from talu.backends.scripted import ScriptedModel
from talu.cli import main, options
from talu.client import Client
from talu.router.spec import ModelSpec
model = ScriptedModel({script})
options.Client = lambda _, profile: Client(ModelSpec("scripted", model))
sys.exit(main.run(["ask", "hi", "--model", "scripted"]))
"""


def spawn(script: str, *inherited: int) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(script=script)],
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        pass_fds=inherited,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
    )


def test_the_answer_goes_to_stdout_and_nothing_else(talu: Talu, scripted: Scripted) -> None:
    scripted("It is ", "4.")
    outcome = talu("ask", "What is 2+2?", "--model", "m")
    assert (outcome.status, outcome.out, outcome.err) == (0, "It is 4.\n", "")


def test_an_answer_that_is_not_streamed_is_the_same(talu: Talu, scripted: Scripted) -> None:
    scripted("It is ", "4.\n")
    assert talu("ask", "hi", "--model", "m", "--no-stream").out == "It is 4.\n"


def test_the_answer_is_printed_piece_by_piece(
    talu: Talu, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = StringIO(), []
    monkeypatch.setattr(sys, "stdout", out)
    scripted("one ", lambda: seen.append(out.getvalue()), "two")
    assert talu("ask", "hi", "--model", "m").status == 0
    assert (seen, out.getvalue()) == (["one "], "one two\n")


@pytest.mark.parametrize(
    ("prompt", "stdin", "question"),
    [
        (["Hi"], None, "Hi"),
        (["Hi"], "not read", "Hi"),
        (["Hi", "-"], "", "Hi"),
        ([], "What is\n2+2?\n", "What is\n2+2?"),
        (["-"], "What is\n2+2?\n", "What is\n2+2?"),
        (["Summarise:", "-"], "a text\n\n", "Summarise:\n\na text"),
        (["日本", "-"], "ё\n", "日本\n\nё"),
    ],
)
def test_the_question_is_the_prompt_or_standard_input_or_both(
    talu: Talu, scripted: Scripted, prompt: list[str], stdin: str | None, question: str
) -> None:
    model = scripted("ok")
    assert talu("ask", *prompt, "--model", "m", stdin=stdin).status == 0
    (request,) = model.requests
    assert [m["content"] for m in request.messages or ()] == [question]


def test_options_reach_the_model(talu: Talu, scripted: Scripted) -> None:
    model = scripted("ok")
    options = ["--system", "Arr.", "--max-tokens", "7", "--temperature", "0.5", "--seed", "3"]
    more = ["--top-k", "9", "--top-p", "0.5", "--stop", "a", "--stop", "b"]
    assert talu("ask", "hi", "--model", "m", *options, *more).status == 0
    (request,) = model.requests
    assert request.messages is not None
    assert request.messages[0] == {"role": "system", "content": "Arr."}
    given = {"max_tokens": 7, "temperature": 0.5, "top_k": 9, "top_p": 0.5, "seed": 3}
    given |= {"stop_sequences": ["a", "b"]}
    assert request.config.to_dict(only_given=True) == given


def test_a_schema_is_read_from_fields_or_from_a_file(
    talu: Talu, scripted: Scripted, tmp_path: Path
) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({**schema, "additionalProperties": False}))
    for given in ("age int", str(path)):
        model = scripted('{"age": 3}')
        outcome = talu("ask", "hi", "--model", "m", "--schema", given)
        assert (outcome.status, outcome.out) == (0, '{"age": 3}\n')
        (request,) = model.requests
        assert request.config.response_format.schema == {**schema, "additionalProperties": False}


@pytest.mark.parametrize("extra", [[], ["--json"]], ids=["text", "json"])
def test_an_answer_that_does_not_have_its_form_is_printed_and_is_a_failure(
    talu: Talu, scripted: Scripted, extra: list[str]
) -> None:
    scripted("Hi there")
    outcome = talu("ask", "hi", "--model", "m", "--schema", "age int", *extra)
    assert outcome.status == 1
    assert "Hi there" in outcome.out
    assert "does not have the form" in outcome.err


def test_a_function_is_a_tool_whose_calls_are_carried_out_and_shown_on_stderr(
    talu: Talu, scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_tools.py").write_text("def double(n: int) -> int:\n    return 2 * n\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    call = ToolCallEvent("c1", "double", '{"n": 2}')
    model = scripted("Let me see.", call, more=[["4."]])
    outcome = talu("ask", "hi", "--model", "m", "--tool", "my_tools:double")
    assert (outcome.status, outcome.out) == (0, "Let me see.\n4.\n")
    assert 'talu: double({"n": 2}) -> 4\n' in outcome.err
    assert model.requests[1].messages[-1]["content"] == "4"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("double", "must be MODULE:FUNCTION"),
        ("no_such_module:f", "was not found"),
        ("json:no_such_function", "was not found"),
    ],
)
def test_a_tool_that_is_not_there_is_wrong_usage(talu: Talu, name: str, problem: str) -> None:
    outcome = talu("ask", "hi", "--model", "m", "--tool", name)
    assert outcome.status == 2
    assert problem in outcome.err


@pytest.mark.parametrize("raised", ["RuntimeError('no database')", "SystemExit('no database')"])
def test_a_module_that_raises_when_it_is_imported_is_wrong_usage(
    talu: Talu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: str
) -> None:
    (tmp_path / "broken_tools.py").write_text(f"raise {raised}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    outcome = talu("ask", "hi", "--model", "m", "--tool", "broken_tools:f")
    assert outcome.status == 2
    assert "--tool broken_tools:f cannot be imported" in outcome.err
    assert "no database" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_is_no_schema_is_wrong_usage(talu: Talu, tmp_path: Path, text: str) -> None:
    path = tmp_path / "schema.json"
    path.write_text(text)
    outcome = talu("ask", "hi", "--model", "m", "--schema", str(path))
    assert outcome.status == 2
    assert "schema.json" in outcome.err


def test_speculation_is_reported_in_the_usage(talu: Talu) -> None:
    ask = ["ask", "What is 2+2?", "--model", "talu/pocket", "--temperature", "0", "--json"]
    plain, speculative = (
        json.loads(talu(*ask).out),
        json.loads(talu(*ask, "--speculative", "ngram").out),
    )
    assert speculative["text"] == plain["text"]
    assert plain["usage"]["draft_tokens"] is None
    assert speculative["usage"]["draft_tokens"] >= speculative["usage"]["accepted_draft_tokens"]


def test_json_holds_text_model_usage_timings_and_finish_reason(
    talu: Talu, scripted: Scripted
) -> None:
    scripted("bell\x07 c1\x9b31m é", CUT_OFF)
    outcome = talu("ask", "hi", "--model", "m", "--json")
    answer = json.loads(outcome.out)
    assert answer["text"] == "bell\x07 c1\x9b31m é"
    assert (answer["model"], answer["finish_reason"]) == ("scripted", "length")
    assert answer["usage"]["total_tokens"] == 7
    assert answer["timings"]["total_ms"] is None
    assert "é" in outcome.out
    assert not {"\x07", "\x9b"} & set(outcome.out)
    assert outcome.out.count("\n") == 1


def test_stderr_reports_a_cut_off_answer_and_notes(talu: Talu, scripted: Scripted) -> None:
    scripted("two tokens", CUT_OFF)
    outcome = talu("ask", "hi", "--model", "m")
    assert outcome.out == "two tokens\n"
    assert outcome.err == "talu: a note\ntalu: cut off after 2 tokens; --max-tokens allows more\n"


def test_a_terminal_gets_no_control_characters(
    talu: Talu, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", out)
    scripted("\x1b", "[2Jhid", "den \x1b]0;x\x07")
    assert talu("ask", "hi", "--model", "m").status == 0
    assert out.getvalue() == "hidden ]0;x\n"


def test_a_pipe_gets_the_text_unchanged(talu: Talu, scripted: Scripted) -> None:
    scripted("\x1b[1mbold\x1b[0m")
    assert talu("ask", "hi", "--model", "m").out == "\x1b[1mbold\x1b[0m\n"


def test_without_a_model_one_line_says_what_is_used_and_how_to_choose(
    talu: Talu, scripted: Scripted
) -> None:
    scripted("ok")
    outcome = talu("ask", "hi")
    assert outcome.err.count("\n") == 1
    assert all(word in outcome.err for word in ("talu/pocket", "--model", "TALU_MODEL"))


def test_the_environment_names_a_model(
    talu: Talu, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted("ok")
    monkeypatch.setenv("TALU_MODEL", "m")
    assert talu("ask", "hi").err == ""


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "said"),
    [
        (["ask"], None, 2, "nothing to ask"),
        (["ask", "  "], " \n", 2, "nothing to ask"),
        (["ask"], b"\xff\xfe", 2, "not UTF-8"),
        (["ask", "hi", "--model", "./no/such/folder"], None, 1, "no/such/folder"),
        (["ask", "hi", "--temperature", "-1"], None, 2, "temperature"),
        (["ask", "hi", "--temperature", "warm"], None, 2, "warm"),
        (["ask", "hi", "--max-tokens", "0"], None, 2, "max_tokens"),
        (["ask", "hi", "--seed", "-3"], None, 2, "seed"),
        (["ask", "hi", "--colour"], None, 2, "--colour"),
        (["ask", "two", "words"], None, 2, "words"),
        (["ask", "two", "-", "words"], None, 2, "words"),
        (["ask", "hi", "--speculative", "mtp"], None, 2, "'ngram'"),
        (["ask", "hi", "-m", "openai::m", "--speculative", "ngram"], None, 2, "LocalBackend"),
        (["chat", "-m", "openai::m", "--speculative", "ngram"], b"hi", 2, "LocalBackend"),
        (["embed"], None, 2, "nothing to embed"),
        (["embed"], b"", 2, "nothing to embed"),
        (["chat", "--model", "m"], b"\xff\n", 2, "not UTF-8"),
        (["completion", "tcsh"], None, 2, "tcsh"),
        (["log", "show", "zz"], None, 2, "no chat"),
        (["log", "list", "--profile", "../x"], None, 2, "profile"),
        (["sing"], None, 2, "sing"),
        (["bench"], None, 2, "MODEL"),
        (["bench", "./no/such/folder"], None, 1, "no/such/folder"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_an_exit_status(
    talu: Talu, home: Path, arguments: list[str], stdin: str | bytes | None, status: int, said: str
) -> None:
    outcome = talu(*arguments, stdin=stdin)
    assert (outcome.status, outcome.out) == (status, "")
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("talu: ")
    assert said in outcome.err


def test_ctrl_c_keeps_the_text_so_far_and_ends_in_one_line(talu: Talu, scripted: Scripted) -> None:
    model = scripted("Once upon", lambda: signal.raise_signal(signal.SIGINT), "never said")
    outcome = talu("ask", "hi", "--model", "m")
    assert (outcome.status, outcome.out) == (130, "Once upon\n")
    assert outcome.err == "talu: interrupted\n"
    assert model.active == 0


@pytest.mark.parametrize("options", [["--json"], ["--no-stream"]])
def test_ctrl_c_before_the_end_of_a_whole_answer_prints_nothing_of_it(
    talu: Talu, scripted: Scripted, options: list[str]
) -> None:
    scripted("Once upon", lambda: signal.raise_signal(signal.SIGINT))
    outcome = talu("ask", "hi", "--model", "m", *options)
    assert (outcome.status, outcome.out, outcome.err) == (130, "", "talu: interrupted\n")


def test_ctrl_c_ends_a_process_that_waits_for_the_model() -> None:
    with spawn('["word", lambda: threading.Event().wait(20)]') as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"word"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"\n", b"talu: interrupted\n")


INTERRUPTED = """
import signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from talu.__main__ import main
sys.argv = ["talu", "ask", "hi", "--model", "talu/pocket"]
main()
"""


@pytest.mark.parametrize(
    "module", ["talu.cli.main", "click", "talu.exceptions", "talu.cli.ask", "tokenizers", "numpy"]
)
def test_ctrl_c_while_modules_are_loaded_prints_one_line(module: str) -> None:
    program = INTERRUPTED.format(module=module)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"talu: interrupted\n")


def test_a_command_that_is_started_with_ctrl_c_ignored_ignores_it() -> None:
    program = INTERRUPTED.format(module="click")
    command = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, program]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_closes_the_pipe_ends_the_command_silently() -> None:
    waits, goes_on = os.pipe()
    with spawn(f'["line\\n", lambda: os.read({waits}, 1), "more"]', waits) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        os.close(goes_on)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    os.close(waits)
    assert process.returncode == 141


def run_with(script: str, redirections: str, **variables: str) -> tuple[int, bytes, bytes]:
    """The command in a shell that redirects its streams."""
    program = PROGRAM.format(script=script)
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {redirections}', sys.executable, program],
        env=os.environ | variables,
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_closed_stdin_counts_as_empty() -> None:
    assert run_with('"text"', "<&-") == (0, b"text\n", b"")


def test_a_closed_stdout_is_an_error_of_one_line() -> None:
    assert run_with('"text"', ">&- </dev/null") == (1, b"", b"talu: standard output is closed\n")


def test_characters_that_stdout_cannot_encode_are_escaped() -> None:
    outcome = run_with('"5 \u20ac"', "</dev/null", PYTHONIOENCODING="ascii")
    assert outcome == (0, b"5 \\u20ac\n", b"")


def test_a_full_disk_is_an_error_of_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-c", PROGRAM.format(script='"text"')]
        process = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert process.returncode == 1
    assert process.stderr.count(b"\n") == 1
    assert b"write the output: no space is left on the disk" in process.stderr
