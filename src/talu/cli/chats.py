"""``talu chats``: lists, shows, deletes and moves stored chats."""

import sys
from datetime import UTC, datetime

import click

from talu.cli.answer import write_json
from talu.cli.chat import find_session
from talu.cli.options import open_client, profile_option
from talu.cli.terminal import counted, visible
from talu.cli.text import TEXT
from talu.error_text import nearest
from talu.exceptions import ValidationError
from talu.profile import Profile
from talu.protocols import SessionRecord

__all__ = ["command"]

WIDTH = 60  # characters of a title, a question or a search result
MAX_READ = 10_000  # characters of it, to remove control characters from
SHOWN_NAMES = 10


@click.group(name="chats")
def command() -> None:
    """List, show, delete and move stored chats.

    ID may be the beginning of an id.
    """


@command.command(name="list")
@click.option(
    "--search", type=TEXT, metavar="WORDS", help="Only chats that contain all these words."
)
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="Maximum number of chats.",
)
@profile_option
def list_(search: str | None, limit: int, profile: str | None) -> None:
    """List chats, the latest first: id, time of the last change, title or first question."""
    kept = _existing(profile)
    records = kept.sessions(search=search, limit=limit)
    for record in records:
        click.echo(_line(kept, record))
    if not records:
        condition = " that contain all these words" if search and search.strip() else ""
        click.echo(f"talu: the profile {kept.name!r} has no chats{condition}", err=True)


@command.command()
@click.argument("session", type=TEXT, metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@profile_option
def show(session: str, as_json: bool, profile: str | None) -> None:
    """Print the messages of a chat."""
    kept = _existing(profile)
    record = find_session(kept, session)
    with open_client(record["model"], kept) as client:  # opens no model
        chat = client.chat(session_id=record["session_id"])
        if as_json:
            write_json(chat.to_dict())
            return
        for message in chat.messages:
            click.echo(f"{message['role']}: {visible(str(message['content']))}")


@command.command()
@click.argument("sessions", type=TEXT, metavar="ID...", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Delete without asking.")
@profile_option
def delete(sessions: tuple[str, ...], yes: bool, profile: str | None) -> None:
    """Delete chats permanently."""
    kept = _existing(profile)
    found = [find_session(kept, session)["session_id"] for session in sessions]
    if not yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise click.UsageError("There is no terminal to ask on: give --yes to delete.")
    if not yes:
        click.confirm(f"Delete {', '.join(found)}?", abort=True, err=True)
    for session in found:
        kept.delete(session)
        click.echo(f"talu: deleted {session}", err=True)


def _existing(name: str | None) -> Profile:
    """The profile of this name, which must exist; the default one may be unused."""
    kept = Profile(name)
    if name is None or kept.database.file.exists:
        return kept
    folder = kept.path.parent
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    known = f"; the profiles are {', '.join(names[:SHOWN_NAMES])}" if names else ""
    hint = nearest(kept.name, names) or known
    raise click.ClickException(
        f"There is no profile {kept.name!r}, because no chat has been stored in it{visible(hint)}."
    )


@command.command()
@click.argument("file", type=click.Path(dir_okay=False))
@profile_option
def export(file: str, profile: str | None) -> None:
    """Write all chats to a new FILE, one JSON object a line."""
    count = _existing(profile).export(file)
    click.echo(f"talu: exported {counted(count, 'chat')} to {file}", err=True)


@command.command(name="import")
@click.argument("file", type=click.Path(dir_okay=False))
@profile_option
def import_(file: str, profile: str | None) -> None:
    """Add all chats of an exported FILE, or none."""
    kept = Profile(profile)
    try:
        count = kept.import_(file)
    except ValidationError as error:  # about the file's content, not about the usage
        raise click.ClickException(str(error)) from error
    done = f"imported {counted(count, 'chat')} into the profile {kept.name}"
    click.echo(f"talu: {done}", err=True)


def _line(kept: Profile, record: SessionRecord) -> str:
    changed = datetime.fromtimestamp(record["updated_at_ms"] / 1000, UTC).astimezone()
    what = record["search_snippet"] or record["title"]
    what = what or kept.database.first_question(record["session_id"]) or record["system_prompt"]
    what = " ".join(visible((what or "")[:MAX_READ]).split())
    what = what if len(what) <= WIDTH else what[: WIDTH - 1] + "…"
    return f"{record['session_id']}  {changed:%Y-%m-%d %H:%M}  {what}".rstrip()
