"""Renders messages to a prompt and splits a reply into its parts."""

from talu.template.prompt_template import PromptTemplate

__all__ = ["PromptTemplate"]
