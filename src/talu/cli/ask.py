"""``talu ask``: one question, and its answer on stdout; everything else goes to stderr."""

import json
import re
import sys
from collections.abc import Iterable

import click

from talu.chat.sync_chat import Response, StreamingResponse
from talu.cli.terminal import VisibleText, visible
from talu.client import Client
from talu.config import GenerationConfig
from talu.types import FinishReason

__all__ = ["command"]

BUNDLED = "talu/pocket"
NO_MODEL = (
    f"talu: using {BUNDLED}, a very small model for trying things out; choose a real one with "
    "--model or TALU_MODEL, such as Qwen/Qwen3-0.6B"
)


@click.command(name="ask")
@click.argument("prompt", required=False)
@click.option(
    "-m", "--model", envvar="TALU_MODEL", show_envvar=True, help="Folder or hub id of a model."
)
@click.option("-s", "--system", help="System message.")
@click.option("--max-tokens", type=int, help="Limit of the answer.")
@click.option("--temperature", type=float, help="0 always takes the most likely token.")
@click.option("--seed", type=int, help="The same seed gives the same answer.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is complete.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, with usage and timings."
)
def command(
    prompt: str | None,
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    no_stream: bool,
    as_json: bool,
) -> None:
    """Ask a model one question.

    The question is PROMPT, or what is piped in, or both: PROMPT, a blank line, and what is piped
    in.
    """
    question = _question(prompt)
    given = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    config = GenerationConfig()
    for name, value in given.items():
        if value is not None:
            setattr(config, name, value)
    if model is None:
        click.echo(NO_MODEL, err=True)
    with Client(model or BUNDLED) as client:
        chat = client.chat(system=system, config=config)
        if as_json:
            _write_json(chat.send(question))
            return
        with chat(question) as response:
            _write([response.text] if no_stream else response)
    _report(response)


def _question(prompt: str | None) -> str:
    """The prompt and what is piped in; a terminal is not waited for."""
    parts = [prompt or ""]
    if sys.stdin is not None and not sys.stdin.isatty():
        try:
            parts.append(sys.stdin.buffer.read().decode())
        except UnicodeDecodeError as error:
            raise click.UsageError(f"What is piped in is not UTF-8: {error}.") from error
    question = "\n\n".join(part.rstrip("\n") for part in parts if part.strip())
    if not question:
        raise click.UsageError("There is nothing to ask: give a prompt, or pipe one in.")
    return question


def _write(pieces: Iterable[str]) -> None:
    """To a terminal without control characters, to a pipe or a file as the model wrote it."""
    terminal = sys.stdout.isatty()
    text = VisibleText()
    last = ""
    try:
        for piece in pieces:
            shown = text.push(piece) if terminal else piece
            last = shown or last
            sys.stdout.write(shown)
            sys.stdout.flush()
        sys.stdout.write(text.flush())
    finally:
        if last and not last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


def _write_json(response: Response) -> None:
    readable = sys.stdout.encoding.lower() == "utf-8"
    text = json.dumps(response.to_dict(), ensure_ascii=not readable)
    # JSON escapes C0 by itself; DEL and C1 would reach a terminal.
    text = re.sub(r"[\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", text)
    sys.stdout.write(text + "\n")


def _report(response: StreamingResponse) -> None:
    """What the reader of the text should know about it."""
    for note in response.notes:
        click.echo(f"talu: {visible(note)}", err=True)
    if response.finish_reason is FinishReason.LENGTH and response.usage is not None:
        count = response.usage.completion_tokens
        click.echo(f"talu: cut off after {count} tokens; --max-tokens allows more", err=True)
