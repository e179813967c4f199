"""Switches the reasoning of a model on or off, by the variables of its chat template."""

from talu.config import GenerationConfig
from talu.error_text import shown
from talu.exceptions import ValidationError

__all__ = ["template_variables"]

SWITCHES = ("enable_thinking", "thinking")  # the names in templates


def template_variables(config: GenerationConfig) -> dict[str, object]:
    """The variables for a chat template: ``extra_context``, and what ``allow_thinking`` sets.

    Raises:
        ValidationError: the two contradict each other.
    """
    given = config.extra_context or {}
    allowed = config.given.get("allow_thinking")
    if allowed is None:
        return given
    for name in SWITCHES:
        if given.get(name, allowed) is not allowed:
            raise ValidationError(
                f"allow_thinking={allowed} and {name}={shown(given[name])} of extra_context "
                "contradict each other: leave one out",
                details={"param": "allow_thinking"},
            )
    return {**dict.fromkeys(SWITCHES, allowed), **given}
