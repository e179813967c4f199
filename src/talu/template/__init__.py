"""Renders messages to a prompt and splits a reply into its parts.

The template engine is loaded on first use.
"""

from typing import TYPE_CHECKING

from talu.first_use import on_first_use

if TYPE_CHECKING:
    from talu.template.prompt_template import PromptTemplate

__all__ = ["PromptTemplate"]

HOMES = {"talu.template.prompt_template": ("PromptTemplate",)}

if not TYPE_CHECKING:
    __getattr__ = on_first_use(__name__, HOMES)


def __dir__() -> list[str]:
    return __all__
