"""``talu completion``: prints the script that completes the command in a shell."""

import sys

import click
from click.shell_completion import get_completion_class

__all__ = ["command"]

SHELLS = ("bash", "zsh", "fish")
INSTALLING = """\b
bash:  echo 'eval "$(talu completion bash)"' >> ~/.bashrc
zsh:   echo 'eval "$(talu completion zsh)"' >> ~/.zshrc
fish:  talu completion fish > ~/.config/fish/completions/talu.fish
"""


@click.command(name="completion", epilog=INSTALLING)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that completes talu's commands and options."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"This version of click does not complete {shell}.")
    root = context.find_root().command
    sys.stdout.write(kind(root, {}, "talu", "_TALU_COMPLETE").source() + "\n")
