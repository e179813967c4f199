"""Finds stored chats for commands: the profile, a chat by the beginning of its id, short ids."""

import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from talu.chat.sync_chat import Chat
from talu.cli.options import profile_option
from talu.cli.terminal import visible
from talu.cli.text import TEXT
from talu.error_text import nearest
from talu.exceptions import TaluError
from talu.profile import Profile
from talu.protocols import SessionRecord

__all__ = [
    "Place",
    "complete_session",
    "existing_profile",
    "find_session",
    "place_of",
    "short_ids",
    "store_options",
    "summary",
]

Function = TypeVar("Function", bound=Callable[..., Any])

ALL = 10_000  # the most sessions that a listing has
SHORT = 8  # characters of a short id
RANDOM_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHOWN_NAMES = 10
WIDTH = 60  # characters of a summary
MAX_READ = 10_000  # characters of its text, to remove control characters from

COMPLETED = 50  # ids that a shell is offered


def complete_session(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The latest stored chats whose ids begin like this, with what they are about."""
    try:
        opened = Profile(context.params.get("profile"))
        shorten = short_ids(opened)
        return [
            CompletionItem(shorten(record["session_id"]), help=summary(opened, record) or None)
            for record in opened.sessions(limit=COMPLETED)
            if record["session_id"].startswith(incomplete)
        ]
    except TaluError:  # a shell can show no message
        return []


STORE = (
    profile_option,
    click.option("--store", is_flag=True, help="Store the chat; --profile does so as well."),
    click.option(
        "-c", "--continue", "latest", is_flag=True, help="Continue the latest stored chat."
    ),
    click.option(
        "--session",
        type=TEXT,
        metavar="ID",
        shell_complete=complete_session,
        help="Continue the stored chat with this id.",
    ),
)


def store_options(function: Function) -> Function:
    """Add the options that say where a chat is stored, and which one goes on; see ``place_of``."""
    for option in reversed(STORE):
        function = option(function)
    return function


@dataclass(frozen=True)
class Place:
    """Where a command stores its chat.

    Attributes:
        profile: None if nothing is stored.
        session_id: the chat that goes on; None for a new one.
        model: the model of that chat.
    """

    profile: Profile | None = None
    session_id: str | None = None
    model: str | None = None

    def mention(self, chat: Chat) -> None:
        """Say on stderr where a new chat is stored, and how to go on with it."""
        if self.profile is not None and self.session_id is None and len(chat.items):
            click.echo(
                f"talu: stored as {chat.session_id}; talu chat --profile {self.profile.name} "
                f"--session {chat.session_id} continues it",
                err=True,
            )


def place_of(
    context: click.Context, profile: str | None, store: bool, latest: bool, session: str | None
) -> Place:
    """What the options of ``store_options`` ask for; TALU_PROFILE alone stores nothing."""
    source = context.get_parameter_source("profile")
    if not (store or latest or session or source is click.core.ParameterSource.COMMANDLINE):
        return Place()
    if latest and session:
        raise click.UsageError("--continue and --session exclude each other.")
    opened = Profile(profile)
    if not (latest or session):
        return Place(opened)
    record = find_session(opened, session or "")
    return Place(opened, record["session_id"], record["model"])


def find_session(profile: Profile, beginning: str) -> SessionRecord:
    """The one stored chat whose id begins like this; "" is the latest chat."""
    records = profile.sessions(limit=ALL if beginning else 1)
    found = [each for each in records if each["session_id"].startswith(beginning)]
    exact = [each for each in found if each["session_id"] == beginning]
    if len(exact or found) == 1:
        return (exact or found)[0]
    what = f"whose id begins with {beginning!r}" if beginning else "yet"
    number = "several chats" if found else "no chat"
    raise click.UsageError(f"There is {number} {what} in the profile {profile.name!r}.")


def summary(profile: Profile, record: SessionRecord) -> str:
    """What a chat is about, in one line: a search result, its title, or its first question."""
    what = record["search_snippet"] or record["title"]
    what = what or profile.database.first_question(record["session_id"]) or record["system_prompt"]
    what = " ".join(visible((what or "")[:MAX_READ]).split())
    return what if len(what) <= WIDTH else what[: WIDTH - 1] + "…"


def existing_profile(name: str | None) -> Profile:
    """The profile of this name, which must exist; the default one may be unused."""
    opened = Profile(name)
    if name is None or opened.database.exists:
        return opened
    folder = None if opened.path is None else opened.path.parent
    names = sorted(path.name for path in folder.iterdir()) if folder and folder.is_dir() else []
    known = f"; the profiles are {', '.join(names[:SHOWN_NAMES])}" if names else ""
    hint = nearest(opened.name, names) or known
    raise click.ClickException(
        f"There is no profile {opened.name!r}, because no chat has been stored in it"
        f"{visible(hint)}."
    )


def short_ids(profile: Profile) -> Callable[[str], str]:
    """Shortens the id of a chat, if it is random, as far as it still names this one only."""
    ids = sorted(record["session_id"] for record in profile.sessions(limit=ALL))

    def shorten(session_id: str) -> str:
        at = bisect_left(ids, session_id)
        if ids[at : at + 1] != [session_id] or not RANDOM_ID.fullmatch(session_id):
            return session_id
        near = [*ids[max(at - 1, 0) : at], *ids[at + 1 : at + 2]]
        lengths = range(SHORT, len(session_id) + 1)
        beginnings = (session_id[:length] for length in lengths)
        return next(b for b in beginnings if not any(other.startswith(b) for other in near))

    return shorten
