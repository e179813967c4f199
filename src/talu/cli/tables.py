"""Prints tables that no terminal width cuts."""

import sys

from rich.console import Console
from rich.table import Table

__all__ = ["print_table"]


def print_table(table: Table) -> None:
    """Print a table on standard output; a narrow terminal may wrap its rows."""
    console = Console(width=1000)
    with console.capture() as captured:
        console.print(table)
    lines = captured.get().splitlines(keepends=True)
    sys.stdout.writelines(line for line in lines if line.strip())
