"""``talu chat``: a conversation in the terminal.

Ctrl-C stops the answer that is being written and keeps what has come; the end of input ends the
conversation.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial

import click

from talu.cli.chat_commands import COMMANDS, QUOTES, Conversation, answer, obey
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
from talu.cli.tools import tool_option, tool_settings
from talu.exceptions import TaluError
from talu.first_use import loaded
from talu.types import Speculative

__all__ = ["command"]

PROMPT = "> "
CONTINUATION = "... "
Read = Callable[[str], str]  # reads a line or a message, after a prompt


@click.command(name="chat")
@model_option
@generation_options
@speculative_option
@tool_option
@store_options
@click.option(
    "--no-input-history", is_flag=True, help="Do not keep what is typed for the next chat."
)
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
    tools: tuple[str, ...],
    profile: str | None,
    store: bool,
    latest: bool,
    session: str | None,
    no_input_history: bool,
) -> None:
    """Chat with a model.

    Each line of input is a message; /help shows what else can be typed. No chat is stored unless
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
    may_call = tool_settings(tools)
    connect = partial(open_client, profile=place.profile, speculative=speculative)
    client = connect(model or place.model)
    conversation = None
    try:
        chat = client.chat(system=system, config=config, session_id=place.session_id, **may_call)
        conversation = Conversation(chat, client, connect, may_call)
        _converse(conversation, keeps_history=not no_input_history)
        place.mention(conversation.chat)
    finally:
        (client if conversation is None else conversation.client).close()


def _converse(conversation: Conversation, *, keeps_history: bool) -> None:
    """Answer each message until the input ends."""
    interactive = sys.stdin is not None and sys.stdin.isatty()
    if interactive:
        click.echo("talu: /help shows the commands, Ctrl-D ends the chat", err=True)
    if len(conversation.chat.items) > 1:
        click.echo(f"talu: continuing a chat of {len(conversation.chat.items)} items", err=True)
    for message in _messages(_reader(keeps_history), interactive=interactive):
        try:
            if not obey(conversation, message):
                answer(conversation.chat, message)
        except TaluError as error:
            if not interactive:
                raise
            click.echo(f"talu: {' '.join(visible(str(error)).split())}", err=True)
        except KeyboardInterrupt:  # before an answer has begun, or in a command
            if not interactive:
                raise
            click.echo("talu: stopped", err=True)
        except EOFError:
            return


def _messages(read: Read, *, interactive: bool) -> Iterator[str]:
    """The messages from the terminal or standard input."""
    while True:
        try:
            message = read(PROMPT)
            while message.startswith(QUOTES) and not _is_closed(message):
                message += f"\n{read(CONTINUATION)}"
        except EOFError:
            return
        except KeyboardInterrupt:
            if not interactive:
                raise
            click.echo("\ntalu: Ctrl-D or /exit ends the chat", err=True)
            continue
        if message.startswith(QUOTES):
            message = message.strip().removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")
        if message.strip():
            yield message


def _is_closed(message: str) -> bool:
    """Whether a message of several lines has its quotes at the end as well."""
    return len(message.rstrip()) >= 2 * len(QUOTES) and message.rstrip().endswith(QUOTES)


def _reader(keeps_history: bool) -> Read:
    """Reads from the terminal with editing, or else lines of standard input."""
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if not (terminal and sys.stdout.isatty()):
        return partial(_line, prompts=terminal)
    kind = loaded("talu.cli.typed_input", "TypedInput")
    read: Read = kind(COMMANDS, QUOTES, keeps_history=keeps_history).read
    return read


def _line(prompt: str, *, prompts: bool) -> str:
    """One line of standard input; raises EOFError at its end."""
    if sys.stdin is None:
        raise EOFError
    if prompts:
        click.echo(prompt, nl=False, err=True)
    data = sys.stdin.buffer.readline()
    if not data:
        raise EOFError
    return decoded(data).rstrip("\r\n")
