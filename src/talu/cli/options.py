"""Defines options shared by several commands, and creates clients and settings from them."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from talu.cli.completion import BUNDLED, complete_model
from talu.cli.text import NOT_EMPTY, TEXT
from talu.client import Client
from talu.config import GenerationConfig
from talu.profile import Profile
from talu.router.spec import ModelSpec
from talu.types import POOLINGS as NAMED_POOLINGS
from talu.types import SPECULATIVE, LocalBackend, Pooling, Speculative

__all__ = [
    "POOLINGS",
    "config_from",
    "generation_options",
    "model_option",
    "open_client",
    "profile_option",
    "speculative_option",
]

Function = TypeVar("Function", bound=Callable[..., Any])

POOLINGS: dict[str, Pooling | None] = {name: name for name in NAMED_POOLINGS} | {"model": None}
NO_MODEL = (
    f"talu: using {BUNDLED}, a very small model for trying things out; choose a real one with "
    "--model or TALU_MODEL, such as Qwen/Qwen3-0.6B"
)

model_option = click.option(
    "-m",
    "--model",
    type=NOT_EMPTY,
    envvar="TALU_MODEL",
    show_envvar=True,
    shell_complete=complete_model,
    help="Folder, GGUF file, hub id, or provider::name.",
)
speculative_option = click.option(
    "--speculative",
    type=click.Choice(SPECULATIVE),
    help="Guess tokens from earlier text: faster edits and quotations.",
)
profile_option = click.option(
    "-p",
    "--profile",
    type=TEXT,
    envvar="TALU_PROFILE",
    show_envvar=True,
    help='Profile that stores the chats, or URL of a PostgreSQL database; "default" if not given.',
)

GENERATION = (
    click.option("-s", "--system", type=TEXT, help="System message."),
    click.option("--max-tokens", type=int, help="Maximum number of tokens in an answer."),
    click.option("--temperature", type=float, help="0 always takes the most likely token."),
    click.option("--top-k", type=int, help="Choose from the K most likely tokens only."),
    click.option("--top-p", type=float, help="Choose from the likeliest tokens up to mass P."),
    click.option("--seed", type=int, help="The same seed gives the same answer."),
    click.option(
        "--stop", type=TEXT, multiple=True, help="Text that ends an answer; may be repeated."
    ),
)


def generation_options(function: Function) -> Function:
    """Add the options that describe an answer; ``config_from`` reads all but ``--system``."""
    for option in reversed(GENERATION):
        function = option(function)
    return function


def config_from(stop: tuple[str, ...], **given: float | None) -> GenerationConfig:
    """The validated settings from the command line."""
    config = GenerationConfig()
    for name, value in given.items():
        if value is not None:
            setattr(config, name, value)
    if stop:
        config.stop_sequences = list(stop)
    return config


def open_client(
    model: str | None, profile: Profile | None = None, *, speculative: Speculative | None = None
) -> Client:
    """A client for the chosen model, or for the bundled one, with a line on stderr."""
    if model is None:
        click.echo(NO_MODEL, err=True)
    name = model or BUNDLED
    if speculative is None:
        return Client(name, profile=profile)
    return Client(ModelSpec(name, LocalBackend(speculative=speculative)), profile=profile)
