"""``talu ask``: asks one question and writes the answer to stdout, everything else to stderr."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from talu.chat.sync_chat import Response, StreamingResponse
from talu.cli.answer import report, write, write_json
from talu.cli.options import (
    config_from,
    generation_options,
    model_option,
    open_client,
    speculative_option,
)
from talu.cli.stdin import DASH, mention_unread, read_text
from talu.cli.text import MAYBE_EMPTY, TEXT
from talu.cli.tools import shown, tool_settings
from talu.first_use import loaded
from talu.types import Speculative

__all__ = ["command"]

MAX_PATH = 1000  # characters; longer ones are fields


@click.command(name="ask")
@click.argument("prompt", type=MAYBE_EMPTY, nargs=-1, metavar="[PROMPT] [-]")
@model_option
@generation_options
@speculative_option
@click.option(
    "--schema",
    type=TEXT,
    metavar="FILE|FIELDS",
    help="The form of the answer: a file with a JSON Schema, or fields such as 'name, age int'.",
)
@click.option(
    "--tool",
    "tools",
    type=TEXT,
    multiple=True,
    metavar="MODULE:FUNCTION",
    help="A function that the model may call; its calls are carried out. Can be repeated.",
)
@click.option("--no-stream", is_flag=True, help="Print the answer when it is complete.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, with usage and timings."
)
def command(
    prompt: tuple[str, ...],
    model: str | None,
    speculative: Speculative | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    stop: tuple[str, ...],
    schema: str | None,
    tools: tuple[str, ...],
    no_stream: bool,
    as_json: bool,
) -> None:
    """Ask a model one question.

    The question is PROMPT. Without PROMPT it is read from standard input. With PROMPT and - it is
    PROMPT, a blank line, and standard input.
    """
    question = _question(prompt)
    config = config_from(
        stop,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    if schema is not None:
        config.response_format = _schema(schema)
    with open_client(model, speculative=speculative) as client:
        chat = client.chat(system=system, config=config, **tool_settings(tools))
        if as_json:
            answer = chat.send(question)
            write_json(answer.to_dict())
            _check(answer)
            return
        with chat(question) as response:
            write([response.text] if no_stream else shown(response))
    report(response)
    _check(response)


def _schema(given: str) -> dict[str, Any]:
    """The schema in a file, or of fields."""
    path = Path(given)
    if path.suffix != ".json" and not (len(given) < MAX_PATH and path.is_file()):
        found: dict[str, Any] = loaded("talu.structured.concise", "concise_schema")(given)
        return found
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"The schema in {given} cannot be read: {error}") from error
    if not isinstance(schema, dict):
        raise click.UsageError(f"The schema in {given} is not a JSON object.")
    return schema


def _check(response: Response | StreamingResponse) -> None:
    """Raise if the answer does not have the form that was asked for."""
    response.parsed  # noqa: B018 - reading it checks the answer


def _question(arguments: tuple[str, ...]) -> str:
    """The prompt, standard input, or both."""
    words = list(arguments)
    dash = words[-1:] == [DASH]
    if dash:
        words.pop()
    if len(words) > 1:
        extra = " ".join(words[1:])
        raise click.UsageError(f"Got unexpected extra arguments ({extra}); put PROMPT in quotes.")
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if dash or not (words or terminal):
        words.append(read_text())
    else:
        mention_unread("PROMPT", "; end the command with - to add it")
    question = "\n\n".join(part.rstrip("\n") for part in words if part.strip())
    if not question:
        raise click.UsageError("There is nothing to ask: give a prompt, or pipe one in.")
    return question
