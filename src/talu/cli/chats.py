"""``talu chats``: lists, shows, deletes and moves stored chats."""

import sys
from datetime import UTC, datetime

import click

from talu.cli.answer import write_json
from talu.cli.chat import find_session
from talu.cli.options import open_client, profile_option
from talu.cli.terminal import visible
from talu.profile import Profile
from talu.protocols import SessionRecord

__all__ = ["command"]

WIDTH = 60  # characters of a title or of a search result


@click.group(name="chats")
def command() -> None:
    """List, show, delete and move stored chats.

    ID may be the beginning of an id.
    """


@command.command(name="list")
@click.option("--search", metavar="WORDS", help="Only chats that contain all these words.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="Maximum number of chats.",
)
@profile_option
def list_(search: str | None, limit: int, profile: str | None) -> None:
    """List chats, the latest first: id, time of the last change, title or search result."""
    for record in Profile(profile).sessions(search=search, limit=limit):
        click.echo(_line(record))


@command.command()
@click.argument("session", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@profile_option
def show(session: str, as_json: bool, profile: str | None) -> None:
    """Print the messages of a chat."""
    kept = Profile(profile)
    record = find_session(kept, _given(session))
    with open_client(record["model"], kept) as client:  # opens no model
        chat = client.chat(session_id=record["session_id"])
        if as_json:
            write_json(chat.to_dict())
            return
        for message in chat.messages:
            click.echo(f"{message['role']}: {visible(str(message['content']))}")


@command.command()
@click.argument("sessions", metavar="ID...", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Delete without asking.")
@profile_option
def delete(sessions: tuple[str, ...], yes: bool, profile: str | None) -> None:
    """Delete chats for good."""
    kept = Profile(profile)
    found = [find_session(kept, _given(session))["session_id"] for session in sessions]
    if not yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise click.UsageError("There is no terminal to ask on: give --yes to delete.")
    if not yes:
        click.confirm(f"Delete {', '.join(found)}?", abort=True, err=True)
    for session in found:
        kept.delete(session)
        click.echo(f"talu: deleted {session}", err=True)


def _given(session: str) -> str:
    """The id, which a script may have left empty."""
    if not session:
        raise click.UsageError("The ID is empty.")
    return session


@command.command()
@click.argument("file", type=click.Path(dir_okay=False))
@profile_option
def export(file: str, profile: str | None) -> None:
    """Write all chats to a new FILE, one JSON object a line."""
    count = Profile(profile).export(file)
    click.echo(f"talu: exported {count} chats to {file}", err=True)


@command.command(name="import")
@click.argument("file", type=click.Path(dir_okay=False))
@profile_option
def import_(file: str, profile: str | None) -> None:
    """Add all chats of an exported FILE, or none."""
    kept = Profile(profile)
    count = kept.import_(file)
    click.echo(f"talu: imported {count} chats into the profile {kept.name}", err=True)


def _line(record: SessionRecord) -> str:
    changed = datetime.fromtimestamp(record["updated_at_ms"] / 1000, UTC).astimezone()
    what = record["search_snippet"] or record["title"] or record["system_prompt"] or ""
    what = " ".join(visible(what).split())
    what = what if len(what) <= WIDTH else what[: WIDTH - 1] + "…"
    return f"{record['session_id']}  {changed:%Y-%m-%d %H:%M}  {what}".rstrip()
