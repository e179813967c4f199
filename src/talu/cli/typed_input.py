"""Reads the messages that are typed in a terminal: with editing, several lines, and a history."""

import os
from collections.abc import Iterable
from pathlib import Path

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle

from talu.error_text import reason

__all__ = ["HISTORY", "TypedInput"]

HISTORY = "~/.talu/chat-history"
MOST_KEPT = 1 << 20  # bytes of the history


class TypedInput:
    """The input of a terminal.

    Enter sends a message; Alt-Enter, and Enter within quotes of several lines, begin another line.

    Args:
        commands: completed with the Tab key.
        quotes: begin and end a message of several lines.
        keeps_history: whether messages are kept in a file for the next time.
    """

    def __init__(self, commands: Iterable[str], quotes: str, *, keeps_history: bool) -> None:
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            prompt_continuation="... ",
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            reserve_space_for_menu=0,
            history=_history() if keeps_history else InMemoryHistory(),
            key_bindings=_keys(quotes),
        )

    def read(self, prompt: str) -> str:
        """The next message, of one or more lines, after a prompt.

        Raises:
            EOFError: Ctrl-D was pressed.
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        return self._session.prompt(prompt)


def _keys(quotes: str) -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        text = event.current_buffer.text.strip()
        closed = len(text) >= 2 * len(quotes) and text.endswith(quotes)
        if text.startswith(quotes) and not closed:
            event.current_buffer.insert_text("\n")
        else:
            event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _history() -> History:
    """The messages of earlier chats, in a file that only the user can read."""
    path = Path(os.path.expanduser(HISTORY))
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        if path.stat().st_size > MOST_KEPT:
            _shorten(path)
    except OSError as error:
        click.echo(f"talu: the history of messages is not kept: {reason(error)}", err=True)
        return InMemoryHistory()
    return FileHistory(path)


def _shorten(path: Path) -> None:
    """Keep the later half of a history, from the beginning of a message."""
    content = path.read_bytes()
    start = content.find(b"\n# ", len(content) // 2)
    path.write_bytes(content[start + 1 :] if start >= 0 else b"")
