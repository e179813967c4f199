"""``talu chat``: a conversation whose messages are typed or piped in."""

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talu.backends.scripted import ScriptedModel
from talu.exceptions import GenerationError
from talu.profile import Profile

Scripted = Callable[..., ScriptedModel]
Talu = Callable[..., Any]
CHAT = ["chat", "--model", "m"]
PROGRAM = """
import os, sys, threading
from talu.backends.scripted import ScriptedModel
from talu.cli import main, options
from talu.client import Client
from talu.router.spec import ModelSpec
# A signal that comes right before a wait begins is handled when it ends: many short ones.
pauses = [lambda: threading.Event().wait(0.1)] * 300
model = ScriptedModel(["word", *pauses], "second answer")
options.Client = lambda _, profile: Client(ModelSpec("scripted", model))
sys.exit(main.run(["chat", "--model", "scripted"]))
"""


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


def test_a_terminal_has_a_prompt_and_ctrl_d_ends_the_chat() -> None:
    terminal, inner = pty.openpty()
    screen = Screen(terminal)
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, stdin=inner, stdout=inner, stderr=inner, start_new_session=True
    ) as process:
        os.close(inner)
        try:
            screen.wait_for(b"/help")
            screen.wait_for(b"> ")
            os.write(terminal, b"hi\r")
            screen.wait_for(b"word")
            process.send_signal(signal.SIGINT)
            screen.wait_for(b"stopped")
            screen.wait_for(b"> ")
            screen.press(
                lambda: process.send_signal(signal.SIGINT), b"Ctrl-D or /exit ends the chat"
            )
            screen.press(lambda: os.write(terminal, b"\x04"), ended=process)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
    os.close(terminal)


def test_two_chats_cannot_be_continued_at_once(talu: Talu, scripted: Scripted, home: Path) -> None:
    scripted("no")
    outcome = talu(*CHAT, "--continue", "--session", "abc", stdin="hi\n")
    assert outcome.status == 2
    assert "--continue and --session exclude each other" in outcome.err
