"""``talu completion``: prints the script that completes the command in a shell."""

import importlib
import sys

import click
from click.shell_completion import CompletionItem, get_completion_class

__all__ = ["BUNDLED", "command", "complete_model"]

BUNDLED = "talu/pocket"

SHELLS = ("bash", "zsh", "fish")
INSTALLING = """\b
bash:  echo 'eval "$(talu completion bash)"' >> ~/.bashrc
zsh:   echo 'eval "$(talu completion zsh)"' >> ~/.zshrc
fish:  echo 'talu completion fish | source' >> ~/.config/fish/config.fish
"""
# What click's scripts lack: zsh defines compdef only if compinit has run, and a description in
# fish may contain commas.
REPAIRS = {
    "zsh": (
        "    compdef _talu",
        "    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i; }\n"
        "    compdef _talu",
    ),
    "fish": ('string split ","', 'string split --max 1 ","'),
}


def complete_model(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The models on this machine whose names begin like this, or else files and folders."""
    # It loads NumPy, which other commands do not need.
    hub = importlib.import_module("talu.sources.hub_cache")
    names = [BUNDLED, *hub.cached_models()]
    matching = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return matching or [CompletionItem(incomplete, type="file")]


@click.command(name="completion", epilog=INSTALLING)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that completes talu's commands and options."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"This version of click does not complete {shell}.")
    root = context.find_root().command
    source = kind(root, {}, "talu", "_TALU_COMPLETE").source()
    if shell in REPAIRS:
        source = source.replace(*REPAIRS[shell])
    sys.stdout.write(source + "\n")
