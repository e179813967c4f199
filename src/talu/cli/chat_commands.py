"""The commands of ``talu chat``: lines that begin with a slash."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click

from talu.chat.items import MessageItem
from talu.chat.sync_chat import Chat
from talu.cli.answer import report
from talu.cli.screen import show
from talu.cli.terminal import counted, visible
from talu.cli.tools import shown
from talu.cli.transcript import as_markdown, as_text
from talu.client import Client
from talu.config import FIELDS
from talu.error_text import nearest, reason
from talu.exceptions import StateError, ValidationError
from talu.tools.functions import as_tool
from talu.types import FinishReason

__all__ = ["COMMANDS", "QUOTES", "Conversation", "answer", "obey"]

QUOTES = '"""'


@dataclass
class Conversation:
    """A chat in the terminal.

    Attributes:
        chat: the one that goes on; ``/fork`` and ``/model`` replace it.
        client: the client of its model.
        connect: makes a client of another model, on the same profile.
        tools: the keywords of chats that say what a model may call.
    """

    chat: Chat
    client: Client
    connect: Callable[[str], Client]
    tools: dict[str, Any]


class Command(NamedTuple):
    """A command.

    Attributes:
        usage: its name and argument.
        help: what it does.
        run: does it, with the text after the name.
    """

    usage: str
    help: str
    run: Callable[[Conversation, str], None]


def answer(chat: Chat, message: str | None) -> None:
    """Stream the answer to a message, or a new answer to the last one; Ctrl-C stops it."""
    response = chat.regenerate(stream=True) if message is None else chat(message)
    try:
        with response:
            show(shown(response))
    except KeyboardInterrupt:
        click.echo("talu: stopped", err=True)
        return
    if response.finish_reason is not FinishReason.CANCELLED:
        report(response)


def obey(conversation: Conversation, message: str) -> bool:
    """Carry out a line that begins with a slash; False for any other.

    Raises:
        EOFError: the chat ends.
        TaluError: the command cannot be carried out.
    """
    if not message.startswith("/"):
        return False
    name, _, rest = message.partition(" ")
    command = COMMANDS.get(ALIASES.get(name, name))
    if command is None:
        hint = nearest(name, COMMANDS) or "; /help shows the commands"
        click.echo(f"talu: there is no {visible(name)}{hint}", err=True)
        return True
    rest = rest.strip()
    if rest and " " not in command.usage:
        raise ValidationError(f"{name} takes no argument, got {rest[:40]}")
    command.run(conversation, rest)
    return True


def _help(conversation: Conversation, rest: str) -> None:
    lines = [(each.usage, each.help) for each in COMMANDS.values()]
    lines += [(QUOTES, "begin and end a message of several lines"), ("Ctrl-C", "stop an answer")]
    lines += [("Alt-Enter", "begin another line of the message, on a terminal")]
    width = max(len(usage) for usage, _ in lines)
    for usage, text in lines:
        click.echo(f"{usage:{width}}  {text}")


def _again(conversation: Conversation, rest: str) -> None:
    if not conversation.chat.items.filter_by_role("user"):
        raise StateError("there is no message to answer again yet")
    answer(conversation.chat, None)


def _undo(conversation: Conversation, rest: str) -> None:
    chat = conversation.chat
    if not chat.items.filter_by_role("user"):
        raise StateError("there is no message to take back")
    last = None
    while not (isinstance(last, MessageItem) and last.role == "user"):
        last = chat.items[-1]
        chat.pop()
    click.echo(f"talu: took back: {_beginning(str(last.text))}", err=True)


def _clear(conversation: Conversation, rest: str) -> None:
    conversation.chat.clear()


def _history(conversation: Conversation, rest: str) -> None:
    click.echo(as_text(conversation.chat.messages), nl=False)


def _system(conversation: Conversation, rest: str) -> None:
    chat = conversation.chat
    if rest:
        chat.system = rest
    else:
        click.echo(visible(chat.items.system or "there is no system message"))


def _model(conversation: Conversation, rest: str) -> None:
    old = conversation.chat
    if not rest:
        click.echo(visible(str(old.model)))
        return
    client = conversation.connect(rest)
    try:
        if client.profile is None:
            messages, config = old.messages, old.config
            chat = client.chat(messages=messages, config=config, **conversation.tools)
        else:
            stored = old.session_id
            chat = client.chat(session_id=stored, model=rest, **conversation.tools)
    except BaseException:
        client.close()
        raise
    conversation.client.close()
    conversation.chat, conversation.client = chat, client


def _set(conversation: Conversation, rest: str) -> None:
    config = conversation.chat.config
    name, _, value = rest.partition(" ")
    if not name:
        given = config.without_none().given
        for each, setting in given.items():
            click.echo(f"{each} = {visible(json.dumps(setting, default=str))}")
        if not given:
            click.echo("talu: every setting is that of the model", err=True)
        return
    if name not in FIELDS:
        raise ValidationError(f"there is no setting {name[:40]!r}{nearest(name, FIELDS)}")
    setattr(config, name, _value(value.strip()))
    conversation.chat.config = config  # stores it


def _save(conversation: Conversation, rest: str) -> None:
    if not rest:
        raise ValidationError("/save needs the name of a file")
    chat = conversation.chat
    text = as_markdown(chat.messages, title=chat.title, about=[str(chat.model)])
    try:
        with Path(rest).expanduser().open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ValidationError(f"the chat cannot be saved in {rest}: {reason(error)}") from error
    click.echo(f"talu: saved as Markdown in {visible(rest)}", err=True)


def _fork(conversation: Conversation, rest: str) -> None:
    old = conversation.chat
    conversation.chat = old.fork()
    stored = f" {conversation.chat.session_id}" if conversation.client.profile else ""
    click.echo(f"talu: going on with the copy{stored}; the original stays as it is", err=True)


def _tools(conversation: Conversation, rest: str) -> None:
    tools = [as_tool(each) for each in conversation.tools.get("tools", ())]
    for each in tools:
        first = next(iter(each.description.splitlines()), "")
        click.echo(visible(f"{each.name}  {first}").rstrip())
    if not tools:
        click.echo("talu: there are no tools; --tool MODULE:FUNCTION adds one", err=True)


def _tokens(conversation: Conversation, rest: str) -> None:
    chat = conversation.chat
    most = chat.max_context_length
    of = f" of {most:,}" if most else ""
    click.echo(f"{counted(chat.count_tokens(), 'token')}{of}")


def _exit(conversation: Conversation, rest: str) -> None:
    raise EOFError


def _value(text: str) -> object:
    """The value of a setting: JSON, or else a text; None if there is none."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def _beginning(text: str) -> str:
    line = " ".join(visible(text).split())
    return line if len(line) <= 60 else f"{line[:60]}…"


COMMANDS = {
    command.usage.partition(" ")[0]: command
    for command in (
        Command("/again", "answer the last message again", _again),
        Command("/undo", "take back the last message and its answer", _undo),
        Command("/clear", "forget the conversation, keep the system message", _clear),
        Command("/fork", "go on with a copy of the conversation", _fork),
        Command("/history", "show the conversation", _history),
        Command("/save FILE", "write the conversation to a new file, as Markdown", _save),
        Command("/system [TEXT]", "show or replace the system message", _system),
        Command("/model [MODEL]", "show the model, or go on with another one", _model),
        Command("/set [NAME [VALUE]]", "show the settings, change or reset one", _set),
        Command("/tools", "show what the model may call", _tools),
        Command("/tokens", "count the tokens of the conversation", _tokens),
        Command("/help", "show these commands", _help),
        Command("/exit", "end the chat; Ctrl-D does the same", _exit),
    )
}
ALIASES = {"/quit": "/exit", "/bye": "/exit", "/regenerate": "/again", "/settings": "/set"}
