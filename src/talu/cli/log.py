"""``talu log``: lists, searches, shows, deletes and moves stored chats."""

import os
import sys
from collections.abc import Iterable, Iterator

import click

from talu.chat.sync_chat import Chat
from talu.cli.answer import write_json
from talu.cli.options import open_client, profile_option
from talu.cli.sessions import (
    complete_session,
    existing_profile,
    find_session,
    short_ids,
    summary,
)
from talu.cli.terminal import counted
from talu.cli.text import TEXT
from talu.cli.transcript import as_markdown, as_text, local_time
from talu.exceptions import ValidationError
from talu.profile import Profile
from talu.protocols import SessionRecord

__all__ = ["command"]

PAGER = {"LESS": "FRX"}  # ends at once if the text fits, and leaves it on the screen

limit_option = click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="Maximum number of chats.",
)
records_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object for each chat, with its whole id.",
)


@click.group(name="log")
def command() -> None:
    """List, search, show, delete and move stored chats.

    ID may be the beginning of an id, as the lists show it.
    """


@command.command(name="list")
@limit_option
@records_option
@profile_option
def list_(limit: int, as_json: bool, profile: str | None) -> None:
    """List chats, the latest first: id, time of the last change, title or first question."""
    opened = existing_profile(profile)
    _print(opened, opened.sessions(limit=limit), as_json=as_json, none="")


@command.command()
@click.argument("words", type=TEXT, nargs=-1, required=True)
@limit_option
@records_option
@profile_option
def search(words: tuple[str, ...], limit: int, as_json: bool, profile: str | None) -> None:
    """List chats that contain all WORDS in one message or the title."""
    opened = existing_profile(profile)
    query = " ".join(words)
    if not query.strip():
        raise click.UsageError("The WORDS are blank.")
    found = opened.sessions(search=query, limit=limit)
    _print(opened, found, as_json=as_json, none=" that contain all these words")


@command.command()
@click.argument("sessions", type=TEXT, metavar="[ID]...", nargs=-1, shell_complete=complete_session)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each chat.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@profile_option
def show(sessions: tuple[str, ...], as_json: bool, markdown: bool, profile: str | None) -> None:
    """Print the messages of chats, of the latest one if there is no ID."""
    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other.")
    opened = existing_profile(profile)
    records = [find_session(opened, session) for session in sessions or ("",)]
    if as_json:
        for _, chat in _chats(opened, records):
            write_json(chat.to_dict())
        return
    for name, value in PAGER.items():
        os.environ.setdefault(name, value)
    texts = (
        _transcript(record, chat, markdown=markdown) for record, chat in _chats(opened, records)
    )
    click.echo_via_pager("\n".join(texts).removesuffix("\n"))


@command.command()
@click.argument(
    "sessions",
    type=TEXT,
    metavar="ID...",
    nargs=-1,
    required=True,
    shell_complete=complete_session,
)
@click.option("-y", "--yes", is_flag=True, help="Delete without asking.")
@profile_option
def delete(sessions: tuple[str, ...], yes: bool, profile: str | None) -> None:
    """Delete chats permanently."""
    opened = existing_profile(profile)
    found = [find_session(opened, session)["session_id"] for session in sessions]
    if not yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise click.UsageError("There is no terminal to ask on: give --yes to delete.")
    if not yes:
        click.confirm(f"Delete {', '.join(found)}?", abort=True, err=True)
    for session in found:
        opened.delete(session)
        click.echo(f"talu: deleted {session}", err=True)


@command.command()
@click.argument("file", type=click.Path(dir_okay=False))
@profile_option
def export(file: str, profile: str | None) -> None:
    """Write all chats to a new FILE of JSON lines, for talu log import."""
    count = existing_profile(profile).export(file)
    click.echo(f"talu: exported {counted(count, 'chat')} to {file}", err=True)


@command.command(name="import")
@click.argument("file", type=click.Path(dir_okay=False))
@profile_option
def import_(file: str, profile: str | None) -> None:
    """Add all chats of an exported FILE, or none."""
    opened = Profile(profile)
    try:
        count = opened.import_(file)
    except ValidationError as error:  # about the file's content, not about the usage
        raise click.ClickException(str(error)) from error
    done = f"imported {counted(count, 'chat')} into the profile {opened.name}"
    click.echo(f"talu: {done}", err=True)


def _chats(
    opened: Profile, records: Iterable[SessionRecord]
) -> Iterator[tuple[SessionRecord, Chat]]:
    for record in records:
        with open_client(record["model"], opened) as client:  # opens no model
            yield record, client.chat(session_id=record["session_id"])


def _transcript(record: SessionRecord, chat: Chat, *, markdown: bool) -> str:
    if not markdown:
        return as_text(chat.messages)
    about = (local_time(record["updated_at_ms"]), record["model"] or "", record["session_id"])
    return as_markdown(chat.messages, title=chat.title, about=filter(None, about))


def _print(opened: Profile, records: list[SessionRecord], *, as_json: bool, none: str) -> None:
    shorten = short_ids(opened)
    for record in records:
        if as_json:
            write_json({key: value for key, value in record.items() if key != "cursor"})
        else:
            time = local_time(record["updated_at_ms"])
            what = summary(opened, record)
            click.echo(f"{shorten(record['session_id'])}  {time}  {what}".rstrip())
    if not records:
        click.echo(f"talu: the profile {opened.name!r} has no chats{none}", err=True)
