"""``talu ask``: asks one question and writes the answer to stdout, everything else to stderr."""

import json
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
from talu.cli.question import asked
from talu.cli.sessions import place_of, store_options
from talu.cli.templates import QuestionTemplate, complete_template, read_template
from talu.cli.text import MAYBE_EMPTY, TEXT
from talu.cli.tools import shown, tool_option, tool_settings
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
@tool_option
@click.option(
    "-f",
    "--file",
    "files",
    type=click.Path(exists=True, dir_okay=False),
    multiple=True,
    help="A text file that the question is about. Can be repeated.",
)
@click.option(
    "-t",
    "--template",
    "template_name",
    type=TEXT,
    metavar="NAME|FILE",
    shell_complete=complete_template,
    help="A question with placeholders: ~/.talu/templates/NAME.toml, or a file.",
)
@click.option(
    "--param",
    "parameters",
    type=(TEXT, MAYBE_EMPTY),
    multiple=True,
    metavar="NAME VALUE",
    help="The value of a placeholder of the template. Can be repeated.",
)
@store_options
@click.option("--no-stream", is_flag=True, help="Print the answer when it is complete.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, with usage and timings."
)
@click.pass_context
def command(
    context: click.Context,
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
    files: tuple[str, ...],
    template_name: str | None,
    parameters: tuple[tuple[str, str], ...],
    profile: str | None,
    store: bool,
    latest: bool,
    session: str | None,
    no_stream: bool,
    as_json: bool,
) -> None:
    """Ask a model one question.

    The question is PROMPT. Without PROMPT it is read from standard input. With PROMPT and - it is
    PROMPT, a blank line, and standard input. Files come before it. Nothing is stored unless
    --store, --profile, --continue or --session asks for it.
    """
    template = None if template_name is None else read_template(template_name)
    question, instruction = asked(prompt, files, template, parameters)
    place = place_of(context, profile, store, latest, session)
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
    name = _model(context, model, template) or place.model
    with open_client(name, place.profile, speculative=speculative) as client:
        chat = client.chat(
            system=system or instruction,
            config=config,
            session_id=place.session_id,
            **tool_settings(tools),
        )
        response: Response | StreamingResponse
        if as_json:
            response = chat.send(question)
            write_json(response.to_dict())
        else:
            with chat(question) as response:
                write([response.text] if no_stream else shown(response))
            report(response)
        place.mention(chat)
    response.parsed  # noqa: B018 - reading it raises if it does not have the form of the schema


def _model(
    context: click.Context, model: str | None, template: QuestionTemplate | None
) -> str | None:
    """The model of the command line, else that of the template, else that of the environment."""
    on_line = context.get_parameter_source("model") is click.core.ParameterSource.COMMANDLINE
    return model if on_line or template is None else template.model or model


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
