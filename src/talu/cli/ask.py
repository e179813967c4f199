"""``talu ask``: asks one question and writes the answer to stdout, everything else to stderr."""

import sys

import click

from talu.cli.answer import report, write, write_json
from talu.cli.options import (
    config_from,
    generation_options,
    model_option,
    open_client,
    speculative_option,
)
from talu.cli.stdin import DASH, mention_unread, read_text
from talu.cli.text import MAYBE_EMPTY
from talu.types import Speculative

__all__ = ["command"]


@click.command(name="ask")
@click.argument("prompt", type=MAYBE_EMPTY, nargs=-1, metavar="[PROMPT] [-]")
@model_option
@generation_options
@speculative_option
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
    with open_client(model, speculative=speculative) as client:
        chat = client.chat(system=system, config=config)
        if as_json:
            write_json(chat.send(question).to_dict())
            return
        with chat(question) as response:
            write([response.text] if no_stream else response)
    report(response)


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
