"""``talu chat``: a conversation in the terminal.

Ctrl-C stops the answer that is being written and keeps what has come; the end of input ends the
conversation.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator

import click

from talu.chat.sync_chat import Chat
from talu.cli.answer import report, write
from talu.cli.options import (
    config_from,
    generation_options,
    model_option,
    open_client,
    speculative_option,
)
from talu.cli.sessions import place_of, store_options
from talu.cli.stdin import decoded
from talu.cli.terminal import visible
from talu.cli.transcript import as_text
from talu.exceptions import StateError, TaluError
from talu.types import FinishReason, Speculative

__all__ = ["command"]

PROMPT = "> "
QUOTES = '"""'
HELP = f"""\
/again          answer the last message again
/clear          forget the conversation, keep the system message
/history        show the conversation
/system [TEXT]  show or replace the system message
/exit           end the chat; Ctrl-D does the same
{QUOTES}             begin and end a message of several lines
Ctrl-C          stop an answer"""


@click.command(name="chat")
@model_option
@generation_options
@speculative_option
@store_options
@click.pass_context
def command(
    context: click.Context,
    model: str | None,
    speculative: Speculative | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    stop: tuple[str, ...],
    profile: str | None,
    store: bool,
    latest: bool,
    session: str | None,
) -> None:
    """Chat with a model.

    Each line of input is a message; /help shows what else can be typed. Nothing is stored unless
    --store, --profile, --continue or --session asks for it.
    """
    config = config_from(
        stop,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    place = place_of(context, profile, store, latest, session)
    with open_client(model or place.model, place.profile, speculative=speculative) as client:
        chat = client.chat(system=system, config=config, session_id=place.session_id)
        _converse(chat)
        place.mention(chat)


def _converse(chat: Chat) -> None:
    """Answer each message until the input ends."""
    interactive = sys.stdin is not None and sys.stdin.isatty()
    if interactive:
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # line editing for ``input``
        click.echo("talu: /help shows the commands, Ctrl-D ends the chat", err=True)
    if len(chat.items) > 1:
        click.echo(f"talu: continuing a chat of {len(chat.items)} items", err=True)
    for message in _messages(interactive=interactive):
        try:
            if not _obey(chat, message):
                _answer(chat, message)
        except TaluError as error:
            if not interactive:
                raise
            click.echo(f"talu: {' '.join(visible(str(error)).split())}", err=True)
        except EOFError:
            return


def _messages(*, interactive: bool) -> Iterator[str]:
    """The messages from the terminal or standard input."""
    while True:
        try:
            message = _line(PROMPT, interactive=interactive)
            if message.startswith(QUOTES):
                message = _block(message.removeprefix(QUOTES), interactive=interactive)
        except EOFError:
            return
        except KeyboardInterrupt:
            if not interactive:
                raise
            click.echo("\ntalu: Ctrl-D or /exit ends the chat", err=True)
            continue
        if message.strip():
            yield message


def _block(begun: str, *, interactive: bool) -> str:
    """A message of several lines, up to three quotes."""
    lines = [begun]
    while not lines[-1].rstrip().endswith(QUOTES):
        lines.append(_line("... ", interactive=interactive))
    lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
    return "\n".join(lines).strip("\n")


def _line(prompt: str, *, interactive: bool) -> str:
    """One line of input; raises EOFError at its end."""
    if sys.stdin is None:
        raise EOFError
    if interactive and sys.stdout.isatty():
        return input(prompt)
    if interactive:
        click.echo(prompt, nl=False, err=True)
    data = sys.stdin.buffer.readline()
    if not data:
        raise EOFError
    return decoded(data).rstrip("\r\n")


def _answer(chat: Chat, message: str | None) -> None:
    """Stream the answer to a message, or a new answer to the last one; Ctrl-C stops it."""
    response = chat.regenerate(stream=True) if message is None else chat(message)
    try:
        with response:
            write(response)
    except KeyboardInterrupt:
        click.echo("talu: stopped", err=True)
        return
    if response.finish_reason is not FinishReason.CANCELLED:
        report(response)


def _obey(chat: Chat, message: str) -> bool:
    """Carry out a line that begins with a slash; False for any other."""
    if not message.startswith("/"):
        return False
    name, _, rest = message.partition(" ")
    match name:
        case "/exit" | "/quit" | "/bye":
            raise EOFError
        case "/again":
            _again(chat)
        case "/clear":
            chat.clear()
        case "/history":
            click.echo(as_text(chat.messages), nl=False)
        case "/system" if rest.strip():
            chat.system = rest.strip()
        case "/system":
            click.echo(visible(chat.items.system or "there is no system message"))
        case "/help":
            click.echo(HELP)
        case _:
            click.echo(f"talu: there is no {name}; /help shows the commands", err=True)
    return True


def _again(chat: Chat) -> None:
    if chat.items.filter_by_role("user"):
        _answer(chat, None)
    else:
        raise StateError("there is no message to answer again yet")
