"""Runs chat templates.

Templates are programs that come with a model, from strangers: see ``language.py`` for what they can
do and ``limits.py`` for how much. This file knows nothing of messages.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta

from talu.exceptions import TemplateError, TemplateSyntaxError, TemplateUndefinedError
from talu.template.language import Rendering, environment, joined, rendering
from talu.template.limits import MAX_SOURCE, Meter, text_size

__all__ = ["check_template", "run_template", "template_variables"]


def run_template(
    source: str,
    variables: Mapping[str, Any],
    *,
    strict: bool = False,
    now: datetime | None = None,
) -> str:
    """Render a template.

    Args:
        source: Jinja as Hugging Face's chat templates use it: trimmed blocks, loop controls,
            ``generation`` blocks, ``tojson``, ``raise_exception``, ``strftime_now``.
        variables: plain data: what JSON can say.
        strict: an undefined variable is an error, and not empty text.
        now: what ``strftime_now`` tells; None is the present, local time.

    Raises:
        TemplateSyntaxError: the source is no valid template.
        TemplateUndefinedError: something undefined is used.
        TemplateError: any other failure. Its code is TEMPLATE_RAISE_EXCEPTION when the template
            refuses its input, TEMPLATE_LIMIT_EXCEEDED when it was stopped.
    """
    template = _compile(source, strict)
    token = rendering.set(Rendering(Meter(text_size(variables)), now))
    try:
        return joined(template.root_render_func(template.new_context(dict(variables))))
    except TemplateError:
        raise
    except Exception as error:
        raise _translated(error, template) from error
    finally:
        rendering.reset(token)


def check_template(source: str) -> None:
    """Compile a template; the result is kept for the renderings to come.

    Raises:
        TemplateSyntaxError: the source is no valid template.
    """
    _compile(source, False)


def template_variables(source: str) -> frozenset[str]:
    """Names that a template reads and neither sets nor finds built in.

    Raises:
        TemplateSyntaxError: the source is no valid template.
    """
    language = _compile(source, False).environment
    names = meta.find_undeclared_variables(language.parse(source))
    return frozenset(names - language.globals.keys())


@lru_cache(maxsize=64)
def _compile(source: str, strict: bool) -> jinja2.Template:
    if len(source) > MAX_SOURCE:
        raise TemplateSyntaxError(
            f"the chat template has {len(source)} characters; {MAX_SOURCE} are the limit",
            code="TEMPLATE_LIMIT_EXCEEDED",
        )
    try:
        return environment(strict).from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateSyntaxError(
            f"the chat template is not valid Jinja: line {error.lineno}: {error.message}",
            details={"line": error.lineno},
        ) from error
    except Exception as error:  # nested too deep for the parser, or for Python's own compiler
        raise TemplateSyntaxError(f"the chat template cannot be compiled: {error}") from error


def _translated(error: Exception, template: jinja2.Template) -> TemplateError:
    line = None
    step = error.__traceback__
    while step:
        if step.tb_frame.f_code.co_filename == "<template>":
            line = template.get_corresponding_lineno(step.tb_lineno)
        step = step.tb_next
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, jinja2.TemplateNotFound):
        what = "it wants to read another template; a chat template stands alone"
    elif isinstance(error, RecursionError):
        what = "it calls itself too often"
    elif isinstance(error, jinja2.TemplateError):
        what = str(error)
    message = f"the chat template failed{f' at line {line}' if line else ''}: {what}"
    undefined = isinstance(error, jinja2.UndefinedError)
    return (TemplateUndefinedError if undefined else TemplateError)(message, details={"line": line})
