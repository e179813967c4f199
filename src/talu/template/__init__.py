"""Messages to a prompt, and a reply to its parts."""

from talu.template.prompt_template import PromptTemplate

__all__ = ["PromptTemplate"]
