"""Defines the public ``PromptTemplate``: a Jinja source that can be inspected and rendered."""

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from talu.error_text import reason, shown
from talu.exceptions import TemplateError, TemplateNotFoundError, ValidationError
from talu.template.limits import MAX_SOURCE
from talu.template.plain import plain
from talu.template.render import RAW, render, traits
from talu.template.sandbox import check_template, run_template, template_variables

__all__ = ["PromptTemplate"]

MAX_BYTES = 4 * MAX_SOURCE  # of a file: a character has at most four bytes


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A Jinja template for prompts, as Hugging Face's chat templates are written.

    It is immutable and safe for use by several threads. As ``chat_template`` of a client or chat it
    replaces the model's template; undefined variables are then empty text, as in model templates.

    Attributes:
        source: Jinja source.
        strict: whether an undefined variable is an error instead of empty text.
        RAW: a template that renders only the texts of the messages, separated by blank lines,
            without roles, tools and tool calls. Special tokens in the texts are recognised.
    """

    source: str
    strict: bool = field(default=True, kw_only=True)

    RAW: ClassVar["PromptTemplate"]

    def __post_init__(self) -> None:
        """Check the source.

        Raises:
            TemplateSyntaxError: it is not a valid template; the message names the line.
        """
        if not isinstance(self.source, str):
            raise ValidationError(
                f"a template is Jinja text, not {shown(self.source)}", details={"param": "source"}
            )
        check_template(self.source)

    @classmethod
    def from_file(cls, path: str | Path, *, strict: bool = True) -> "PromptTemplate":
        """Read a template from a UTF-8 file.

        Raises:
            ValidationError: ``path`` is not a path.
            TemplateNotFoundError: there is no such file.
            TemplateError: the file cannot be read, is too large, or is not a valid template.
        """
        try:
            if (size := _size_of(Path(path))) > MAX_BYTES:
                raise TemplateError(
                    f"the template file {str(path)!r} has {size:,} bytes; at most "
                    f"{MAX_BYTES:,} are read",
                    "TEMPLATE_LIMIT_EXCEEDED",
                    {"path": str(path), "bytes": size},
                )
            source = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise TemplateNotFoundError(
                f"there is no template file {shown(str(path))}", details={"path": str(path)}
            ) from error
        except TypeError as error:
            wrong = f"path must be text or a path, got {shown(path)}"
            raise ValidationError(wrong, details={"param": "path", "value": path}) from error
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else shown(str(error))
            raise TemplateError(
                f"the template file {shown(str(path))} cannot be read: {why}",
                details={"path": str(path)},
            ) from error
        return cls(source, strict=strict)

    @property
    def input_variables(self) -> frozenset[str]:
        """Names of the variables that the template uses."""
        return template_variables(self.source)

    @property
    def supports_system_role(self) -> bool:
        """Whether the template shows the content of a system message; found by rendering one."""
        return traits(self.source).system_role

    @property
    def supports_tools(self) -> bool:
        """Whether the template shows offered tools; found by rendering some."""
        return traits(self.source).tools

    def render(self, *, strict: bool | None = None, **variables: object) -> str:
        """Render with these variables, whose values must have JSON types.

        Args:
            strict: overrides the template's setting.
            **variables: values by name.

        Raises:
            ValidationError: a value has another type.
            TemplateError: a variable is undefined, or the template fails.
        """
        values = {name: plain(value, name) for name, value in variables.items()}
        return run_template(self.source, values, strict=self._strict(strict))

    def apply(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
        bos_token: str = "",
        eos_token: str = "",
        strict: bool | None = None,
        **variables: object,
    ) -> str:
        """Render a conversation; see ``talu.template.render.render`` for the arguments.

        Raises:
            ValidationError: a message is malformed.
            TemplateError: the template fails, or refuses the conversation.
        """
        return render(
            self.source,
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            tokens={"bos_token": bos_token, "eos_token": eos_token},
            extra=variables,
            strict=self._strict(strict),
        )

    def _strict(self, asked: bool | None) -> bool:
        return self.strict if asked is None else asked


def _size_of(path: Path) -> int:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
        raise OSError("it is not a file")
    return status.st_size


PromptTemplate.RAW = PromptTemplate(RAW, strict=False)
