"""Describes servers, and what messages may show of them."""

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from urllib.parse import SplitResult, urlsplit

from talu.backends.remote.endpoint import Endpoint, endpoint_of
from talu.backends.remote.options import RemoteBackend, Secret
from talu.backends.remote.providers import PLAIN
from talu.error_text import kind_of, shown, without_keys
from talu.exceptions import ValidationError
from talu.forks import import_whole

__all__ = ["Command", "Server", "WebServer", "server_of"]

MAX_ARGUMENTS = 10_000
MAX_TEXT = 100_000  # characters of an argument or a value
MIN_SECRET = 6  # characters of a value of ``env``, or a word of a header, that messages hide
# What these programs run says more than their names.
LAUNCHERS = re.compile(r"python[\d.]*|node|npx|uvx?|bunx?|deno|pipx|docker|podman")
PLAIN_WORD = re.compile(r"[A-Za-z0-9@._/-]{1,80}")
OF_SHELLS = {"|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "2>&1"}
OF_PROTOCOL = ("mcp-", "accept", "content-type", "last-event-id")


class Server(ABC):
    """A server that can be connected to.

    Attributes:
        name: what messages call it.
    """

    name: str

    @abstractmethod
    def hide(self, text: str) -> str:
        """The text without the server's secrets."""


class Command(Server):
    """A server that is started as a program, and speaks on its standard input and output.

    Attributes:
        program: the program.
        arguments: its arguments.
        env: the variables that are added to its environment.
        cwd: the folder in which it runs; None is that of this process.
    """

    def __init__(
        self, program: str, arguments: tuple[str, ...], env: dict[str, Secret], cwd: str | None
    ) -> None:
        self.program = program
        self.arguments = arguments
        self.env = env
        self.cwd = cwd
        shows = [PurePath(program).name]
        if LAUNCHERS.fullmatch(shows[0]):
            words = [text for text in arguments if not text.startswith("-")][:1]
            shows += [PurePath(word).name for word in words if PLAIN_WORD.fullmatch(word)]
        self.name = shown(" ".join(shows))

    def hide(self, text: str) -> str:
        """The text without the values of ``env``."""
        return _without(text, self.env.values())


class WebServer(Server):
    """A server that is reached by HTTP.

    Attributes:
        endpoint: its origin.
        target: path and query.
        headers: of every request.
    """

    def __init__(self, endpoint: Endpoint, target: Secret, headers: dict[str, str]) -> None:
        self.endpoint = endpoint
        self.target = target
        self.headers = headers
        self.name = shown(endpoint.url)

    def hide(self, text: str) -> str:
        """The text without the values of headers, and without path and query."""
        parts = re.split(r"[/?&=]", str(self.target))
        given = [value for value in self.headers.values() if isinstance(value, Secret)]
        words = [word for value in given for word in value.split()[1:]]  # not the scheme: Bearer
        return _without(text, [*self.endpoint.secrets, *given, *words, self.target, *parts])


def _without(text: str, secrets: Iterable[str]) -> str:
    """The text without these texts, and without what looks like a key."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= MIN_SECRET:
            text = text.replace(secret, "***")
    return without_keys(text)


def server_of(
    server: object,
    args: object,
    env: object,
    cwd: object,
    headers: object,
    allow_insecure: object,
) -> Server:
    """The server that the arguments of ``MCP`` describe.

    Raises:
        ValidationError: an argument is wrong, or belongs to the other kind of server.
    """
    if not isinstance(server, str) or not server.strip() or len(server) > MAX_TEXT:
        wanted = "a command ('uvx mcp-server-time') or an address ('https://host/mcp')"
        raise _wrong("server", f"must be {wanted}, got {kind_of(server)}")
    if re.match(r"https?://", server, re.IGNORECASE):
        others = {"args": args, "env": env, "cwd": cwd}
        _refuse_others(others, "a server behind an address has no")
        return _web_server(server, headers, allow_insecure)
    if "://" in server.split()[0]:
        raise _wrong("server", "must be an address with https:// or http://, or a command")
    _refuse_others({"headers": headers}, "a server that is started by a command has no")
    if allow_insecure is not False:
        raise _wrong("allow_insecure", "is for addresses with http://, and not for commands")
    words = _words(server) if args is None else [server, *_arguments(args)]
    for word in words:
        if "\0" in word or len(word) > MAX_TEXT:
            raise _wrong("args", f"must have at most {MAX_TEXT:,} characters each, and no NUL")
    return Command(words[0], tuple(words[1:]), _variables(env), _folder(cwd))


def _wrong(param: str, problem: str) -> ValidationError:
    return ValidationError(f"{param} {problem}", details={"param": param})


def _refuse_others(others: Mapping[str, object], why: str) -> None:
    for param, value in others.items():
        if value is not None:
            raise _wrong(param, f"cannot be given: {why} {param}")


def _words(command: str) -> list[str]:
    """The words of a command, split as a shell would do."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise _wrong("server", f"is not a command: {error}") from None
    strays = [word for word in words if word in OF_SHELLS]
    if strays:
        how = "the command is not run by a shell; name a script, or give the arguments as args="
        raise _wrong("server", f"must not contain {strays[0]!r}: {how}")
    if not words or not words[0]:
        raise _wrong("server", "must begin with the name of a program")
    return words


def _arguments(args: object) -> list[str]:
    several = isinstance(args, list | tuple) and len(args) <= MAX_ARGUMENTS
    if several and isinstance(args, Iterable) and all(isinstance(word, str) for word in args):
        return list(args)
    raise _wrong("args", f"must be a list of at most {MAX_ARGUMENTS:,} texts")


def _variables(env: object) -> dict[str, Secret]:
    if env is None:
        return {}
    if not isinstance(env, Mapping) or len(env) > MAX_ARGUMENTS:
        raise _wrong("env", "must be a dictionary of names and texts")
    for name, value in env.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise _wrong("env", f"has a wrong name of a variable: {shown(name)}")
        if not isinstance(value, str) or "\0" in value or len(value) > MAX_TEXT:
            wanted = f"a text of at most {MAX_TEXT:,} characters without NUL"
            raise _wrong("env", f"must have {wanted} for {shown(name)}, got {kind_of(value)}")
    return {name: Secret(value) for name, value in env.items()}


def _folder(cwd: object) -> str | None:
    if cwd is None:
        return None
    if not isinstance(cwd, str | Path) or "\0" in str(cwd):
        raise _wrong("cwd", f"must be the path of a folder, got {kind_of(cwd)}")
    return str(cwd)


def _web_server(url: str, headers: object, allow_insecure: object) -> WebServer:
    if not isinstance(allow_insecure, bool):
        raise _wrong("allow_insecure", f"must be True or False, got {shown(allow_insecure)}")
    parts = _parts(url)
    target = Secret((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
    origin = f"{parts.scheme.lower()}://{parts.netloc}"
    options = RemoteBackend(
        base_url=origin,
        headers=headers,  # type: ignore[arg-type]  # it is checked there
        allow_insecure=allow_insecure,
    )
    try:
        endpoint = endpoint_of(PLAIN, options, {})
        own = import_whole("talu.backends.remote.http").own_headers(endpoint, options)
    except ValidationError as error:
        text = str(error).replace("base_url ", "server ", 1)
        raise ValidationError(text, error.code, error.details) from None
    for name in headers if isinstance(headers, Mapping) else ():
        if name.lower().startswith(OF_PROTOCOL):
            raise _wrong("headers", f"must not have {shown(name)}, which the protocol sets")
    return WebServer(endpoint, target, own)


def _parts(url: str) -> SplitResult:
    """The parts of an address; its messages do not show it, as it may have secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _wrong("server", "is a malformed address") from None
    if parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise _wrong("server", "must be an address of printable ASCII without '#'")
    if "@" in parts.netloc:
        raise _wrong("server", "must not have a user or a password: give them in headers=")
    return parts
