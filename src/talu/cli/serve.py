"""``talu serve``: serves models to the clients of OpenAI's API."""

import contextlib
import logging
import os
import re
from pathlib import Path

import click

from talu.cli.completion import BUNDLED
from talu.cli.text import TEXT
from talu.error_text import reason
from talu.exceptions import IOError
from talu.first_use import loaded
from talu.router.spec import ModelSpec

__all__ = ["command"]

KEYS = "TALU_API_KEY"
NAMED = re.compile(r"(?P<name>[\w.:/-]+)=(?P<ref>.+)")
POLICIES = {
    "fallback": "Fallback",
    "round-robin": "RoundRobin",
    "least-busy": "LeastBusy",
    "fastest": "Fastest",
    "sticky": "Sticky",
}
MAX_KEY_FILE = 2**20  # bytes


@click.command(name="serve")
@click.argument("models", type=TEXT, nargs=-1, metavar="[MODEL]...")
@click.option("--host", type=TEXT, default="127.0.0.1", show_default=True, help="Address.")
@click.option("--port", type=int, default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--api-key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"File with keys, one a line; {KEYS} may have one as well.",
)
@click.option(
    "--allowed-host", "allowed_hosts", type=TEXT, multiple=True,
    help="Name by which the server may be called; may be repeated.",
)  # fmt: skip
@click.option(
    "--cors-origin", "cors_origins", type=TEXT, multiple=True,
    help="Web page that may call the server, as https://HOST; may be repeated.",
)  # fmt: skip
@click.option(
    "--policy", type=click.Choice(list(POLICIES)),
    help="Model of this name that chooses among the others.",
)  # fmt: skip
@click.option(
    "--keep-alive", type=float, metavar="SECONDS",
    help="Close a local model this long after its last request.",
)  # fmt: skip
@click.option("--memory", type=float, metavar="GB", help="Memory of all local models together.")
@click.option(
    "--max-requests", type=int, default=256, show_default=True,
    help="Answers at a time; more get the status 429.",
)  # fmt: skip
@click.option(
    "--requests-per-minute", type=int, metavar="N",
    help="Requests that a key may begin in a minute; more get the status 429.",
)  # fmt: skip
@click.option(
    "--timeout", type=float, default=600.0, show_default=True, help="Seconds for a request."
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning"]), default="info",
    show_default=True, help="What standard error shows; never prompts and keys.",
)  # fmt: skip
def command(
    models: tuple[str, ...],
    host: str,
    port: int,
    api_key_file: Path | None,
    allowed_hosts: tuple[str, ...],
    cors_origins: tuple[str, ...],
    policy: str | None,
    keep_alive: float | None,
    memory: float | None,
    max_requests: int,
    requests_per_minute: int | None,
    timeout: float,
    log_level: str,
) -> None:
    """Serve models over HTTP.

    The clients of OpenAI's API can use it, with http://127.0.0.1:8000/v1 as their base URL, and
    those of Anthropic's without /v1. Each MODEL, or NAME=MODEL, is opened by its first request;
    without one it is the bundled model. A model of a provider, such as openai::gpt-4o, is asked
    with the server's key. An address that other machines reach needs a key, in TALU_API_KEY or a
    file.
    """
    options = loaded("talu.server", "ServerOptions")(
        host=host,
        port=port,
        api_keys=_keys(api_key_file),
        allowed_hosts=allowed_hosts,
        cors_origins=cors_origins,
        keep_alive=keep_alive,
        memory=None if memory is None else int(memory * 1e9),
        max_requests=max_requests,
        requests_per_minute=requests_per_minute,
        timeout=timeout,
    )
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    chosen = [_named(model) for model in models or (BUNDLED,)]
    rule = None if policy is None else loaded("talu.router", POLICIES[policy])(name=policy)
    with contextlib.suppress(KeyboardInterrupt):  # the usual end
        loaded("talu.server", "serve")(chosen, options, _tell, policy=rule)


def _named(model: str) -> ModelSpec:
    """The model of an argument, which may have a name before it."""
    found = NAMED.fullmatch(model)
    return ModelSpec(found["ref"], name=found["name"]) if found else ModelSpec(model)


def _tell(address: str) -> None:
    click.echo(f"talu: serving at {address}/v1, described at {address}/docs", err=True)


def _keys(file: Path | None) -> tuple[str, ...]:
    """The keys of the environment and of a file."""
    keys = os.environ.get(KEYS, "").split()
    if file is not None:
        try:
            with file.open("rb") as opened:
                text = opened.read(MAX_KEY_FILE + 1)
        except OSError as error:
            raise IOError(f"the file of keys cannot be read: {reason(error)}") from error
        if len(text) > MAX_KEY_FILE:
            raise click.UsageError(f"The file of keys has more than {MAX_KEY_FILE:,} bytes.")
        keys += text.decode(errors="replace").split()
    return tuple(dict.fromkeys(keys))
