"""``talu chat``: a conversation whose messages are typed or piped in."""

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from talu.backends.scripted import ScriptedModel
from talu.exceptions import GenerationError
from talu.profile import Profile
from talu.types import ReasoningDelta

Scripted = Callable[..., ScriptedModel]
Talu = Callable[..., Any]
CHAT = ["chat", "--model", "m"]
PROGRAM = """
import os, sys, threading
from talu.backends.scripted import ScriptedModel
from talu.cli import main, options
from talu.client import Client
from talu.router.spec import ModelSpec
from talu.types import ReasoningDelta
# A signal that comes right before a wait begins is handled when it ends: many short ones.
pauses = [lambda: threading.Event().wait(0.1)] * 300
model = ScriptedModel(["word", *pauses], "second answer")
options.Client = lambda _, profile: Client(ModelSpec("scripted", model))
sys.exit(main.run(["chat", "--model", "scripted", *sys.argv[1:]]))
"""
PROMPT = b"\x1b[0m>"  # and the cursor moves on
SCRIPT = '["word", *pauses], "second answer"'


def test_each_line_is_a_message_of_one_conversation(talu: Talu, scripted: Scripted) -> None:
    model = scripted("one", more=[["two"]])
    outcome = talu(*CHAT, "--system", "Be brief.", stdin="first\n\nsecond\n")
    assert (outcome.status, outcome.out, outcome.err) == (0, "one\ntwo\n", "")
    said = [message["content"] for message in model.requests[1].messages or ()]
    assert said == ["Be brief.", "first", "one", "second"]


def test_three_quotes_enclose_a_message_of_several_lines(talu: Talu, scripted: Scripted) -> None:
    model = scripted("ok", more=[["ok"]])
    talu(*CHAT, stdin='"""one\n\ntwo"""\n"""\nthree\n"""\n')
    said = [request.messages[-1]["content"] for request in model.requests if request.messages]
    assert said == ["one\n\ntwo", "three"]


def test_commands_show_and_change_the_conversation(talu: Talu, scripted: Scripted) -> None:
    model = scripted("one", more=[["two"], ["three"]])
    lines = ["hi", "/again", "/system Arr.", "/system", "/history", "/clear", "bye", "/exit", "no"]
    outcome = talu(*CHAT, stdin="\n".join(lines))
    assert outcome.out == "one\ntwo\nArr.\nsystem: Arr.\nuser: hi\nassistant: two\nthree\n"
    assert len(model.requests) == 3
    said = [message["content"] for message in model.requests[2].messages or ()]
    assert said == ["Arr.", "bye"]


def test_an_unknown_command_is_named_and_is_not_a_message(talu: Talu, scripted: Scripted) -> None:
    model = scripted("ok")
    outcome = talu(*CHAT, stdin="/sing\n")
    assert (outcome.out, model.requests) == ("", [])
    assert "/sing" in outcome.err
    assert "/help" in outcome.err


def test_help_names_every_command(talu: Talu, scripted: Scripted) -> None:
    scripted()
    out = talu(*CHAT, stdin="/help\n").out
    assert all(name in out for name in ("/again", "/clear", "/history", "/system", "/exit"))


def test_a_failure_ends_a_script_with_its_status(talu: Talu, scripted: Scripted) -> None:
    scripted(GenerationError("the model broke"))
    outcome = talu(*CHAT, stdin="hi\nmore\n")
    assert (outcome.status, outcome.err) == (1, "talu: the model broke\n")


def test_nothing_is_stored_unless_requested(
    talu: Talu, scripted: Scripted, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALU_PROFILE", "work")
    scripted("ok")
    talu(*CHAT, stdin="hi\n")
    assert not list(home.iterdir())


@pytest.mark.parametrize("option", [["--store"], ["--profile", "default"]])
def test_a_stored_chat_can_be_continued(
    talu: Talu, scripted: Scripted, home: Path, option: list[str]
) -> None:
    scripted("one")
    first = talu(*CHAT, *option, stdin="hi\n")
    (record,) = Profile().sessions()
    assert record["session_id"] in first.err
    for number, back in enumerate([["--continue"], ["--session", record["session_id"][:8]]]):
        model = scripted("two")
        outcome = talu(*CHAT, *back, stdin="more\n")
        assert (outcome.status, outcome.out) == (0, "two\n")
        assert len(model.requests[0].messages or ()) == 3 + 2 * number


def test_continuing_a_chat_uses_its_stored_model(talu: Talu, home: Path) -> None:
    talu("chat", "--store", "--model", "talu/pocket", stdin="Hello!\n")
    outcome = talu("chat", "--continue", stdin="What is 2+2?\n")
    assert outcome.status == 0
    assert "--model" not in outcome.err


def test_a_chat_that_is_not_stored_cannot_be_continued(
    talu: Talu, scripted: Scripted, home: Path
) -> None:
    scripted("no")
    for option in (["--continue"], ["--session", "abc"]):
        outcome = talu(*CHAT, *option, stdin="hi\n")
        assert (outcome.status, outcome.out) == (2, "")
        assert "no chat" in outcome.err


def test_ctrl_c_stops_an_answer_and_not_the_chat() -> None:
    command = [sys.executable, "-c", PROGRAM]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hi\n")
        process.stdin.flush()
        assert process.stdout.read(4) == b"word"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(b"more\n", timeout=30)
    assert (process.returncode, out, err) == (0, b"\nsecond answer\n", b"talu: stopped\n")


class Screen:
    """What a terminal shows, read up to an expected text."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._unread = b""

    def wait_for(self, text: bytes) -> None:
        while text not in self._unread:
            assert self._read(30), f"{text!r} does not come after {self._unread!r}"
        self._unread = self._unread.partition(text)[2]

    def press(
        self,
        key: Callable[[], object],
        text: bytes | None = None,
        ended: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """Press a key until a text comes or a process ends.

        A key that is pressed right before the program begins to read is lost.
        """
        for _ in range(60):
            key()
            while not self._came(text, ended) and self._read(0.5):
                pass
            if self._came(text, ended):
                break
        if text is not None:
            self.wait_for(text)

    def _came(self, text: bytes | None, ended: subprocess.Popen[bytes] | None) -> bool:
        return (text is not None and text in self._unread) or (
            ended is not None and ended.poll() is not None
        )

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], seconds)
        if ready:
            try:
                self._unread += os.read(self._terminal, 1024)
            except OSError:  # the program has closed the terminal
                return False
        return bool(ready)


@contextmanager
def typed(home: Path, *arguments: str, script: str = SCRIPT) -> Iterator[tuple[Any, Screen, int]]:
    """The process of a chat in a terminal, its screen, and its keyboard."""
    terminal, inner = pty.openpty()
    variables = {"HOME": str(home), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace(SCRIPT, script), *arguments],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        env=os.environ | variables,
    ) as process:
        os.close(inner)
        screen = Screen(terminal)
        try:
            screen.wait_for(b"/help")
            screen.wait_for(PROMPT)
            yield process, screen, terminal
        finally:
            process.kill()
    os.close(terminal)


def test_a_terminal_has_a_prompt_and_ctrl_d_ends_the_chat(home: Path) -> None:
    with typed(home) as (process, screen, keyboard):
        os.write(keyboard, b"hi\r")
        screen.wait_for(b"word")
        process.send_signal(signal.SIGINT)
        screen.wait_for(b"stopped")
        screen.wait_for(PROMPT)
        screen.press(lambda: process.send_signal(signal.SIGINT), b"Ctrl-D or /exit ends the chat")
        screen.press(lambda: os.write(keyboard, b"\x04"), ended=process)
        assert process.wait(timeout=30) == 0


ECHO = """
[lambda: None, "**bold** and \\x1b[31mred"], ["second"]
"""


def test_an_answer_in_a_terminal_is_styled_and_has_no_control_sequences_of_the_model(
    home: Path,
) -> None:
    with typed(home, script=ECHO) as (_, screen, keyboard):
        os.write(keyboard, b"hi\r")
        screen.wait_for(b"\x1b[1mbold\x1b[22m and red\r\n")


THINKS = """
[ReasoningDelta("Two \\x1b]0;and"), ReasoningDelta(" two."), "It is **four**."], ["second"]
"""


def test_the_reasoning_of_a_model_is_dimmed_before_the_answer(home: Path) -> None:
    with typed(home, script=THINKS) as (_, screen, keyboard):
        os.write(keyboard, b"hi\r")
        screen.wait_for(b"\x1b[2mTwo ]0;and\x1b[22m\x1b[2m two.\x1b[22m\r\n")
        screen.wait_for(b"It is \x1b[1mfour\x1b[22m.\r\n")


def test_a_pipe_gets_no_reasoning(talu: Talu, scripted: Scripted) -> None:
    scripted(ReasoningDelta("Two and two."), "It is four.")
    assert talu(*CHAT, stdin="hi\n").out == "It is four.\n"


def test_a_message_of_several_lines_can_be_typed_in_quotes_or_with_alt_enter(home: Path) -> None:
    with typed(home, script='["first"], ["second"]') as (_, screen, keyboard):
        os.write(keyboard, b'"""one\rtwo"""\r')
        screen.wait_for(b"first\r\n")
        screen.wait_for(PROMPT)
        os.write(keyboard, b"three\x1b\rfour\r")
        screen.wait_for(b"second\r\n")
        screen.wait_for(PROMPT)
        os.write(keyboard, b"/history\r")
        screen.wait_for(b"user: one\r\ntwo\r\n")
        screen.wait_for(b"user: three\r\nfour\r\n")


def test_what_was_typed_comes_back_in_the_next_chat(home: Path) -> None:
    for keys, shown in ((b"a message\r", b"second answer"), (b"\x1b[A", b"a message")):
        with typed(home, script='"second answer"') as (process, screen, keyboard):
            os.write(keyboard, keys)
            screen.wait_for(shown)
            screen.press(lambda: os.write(keyboard, b"\x03\x04"), ended=process)
    history = home / ".talu" / "chat-history"
    assert "a message" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


def test_what_was_typed_is_not_kept_if_the_user_does_not_want_it(home: Path) -> None:
    with typed(home, "--no-input-history", script='"second answer"') as (process, screen, keyboard):
        os.write(keyboard, b"a message\r")
        screen.wait_for(b"second answer")
        screen.press(lambda: os.write(keyboard, b"\x04"), ended=process)
    assert not (home / ".talu").exists()


def test_two_chats_cannot_be_continued_at_once(talu: Talu, scripted: Scripted, home: Path) -> None:
    scripted("no")
    outcome = talu(*CHAT, "--continue", "--session", "abc", stdin="hi\n")
    assert outcome.status == 2
    assert "--continue and --session exclude each other" in outcome.err
