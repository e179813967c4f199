"""Compiles, caches and runs chat templates.

Templates are untrusted programs that come with a model: ``language.py`` defines what they can do,
``limits.py`` how much.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import jinja2
from jinja2 import meta

from talu.exceptions import TaluError, TemplateError, TemplateSyntaxError, TemplateUndefinedError
from talu.template.language import Rendering, environment, joined, rendering
from talu.template.limits import MAX_SOURCE, Meter, template_time

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
        variables: plain data, as in JSON.
        strict: an undefined variable is an error, not empty text.
        now: the time for ``strftime_now``; None is the current local time.

    Raises:
        TemplateSyntaxError: the source is not a valid template.
        TemplateUndefinedError: an undefined variable is used.
        TemplateError: any other failure. Its code is TEMPLATE_RAISE_EXCEPTION if the template
            refuses its input, TEMPLATE_LIMIT_EXCEEDED if it exceeds a limit.
    """
    with template_time() as clock:
        template = _compiled(source, strict)
        token = rendering.set(Rendering(Meter(variables, clock), now))
        try:
            return joined(template.root_render_func(template.new_context(dict(variables))))
        except TaluError:
            raise
        except Exception as error:
            raise _translated(error, template) from error
        finally:
            rendering.reset(token)


def check_template(source: str) -> None:
    """Compile a template; the result is cached for later renderings.

    Raises:
        TemplateSyntaxError: the source is not a valid template.
    """
    _compiled(source, False)


def template_variables(source: str) -> frozenset[str]:
    """Names that a template uses but neither sets nor has built in.

    Raises:
        TemplateSyntaxError: the source is not a valid template.
    """
    language = _compiled(source, False).environment
    names = meta.find_undeclared_variables(language.parse(source))
    return frozenset(names - language.globals.keys())


def _compiled(source: str, strict: bool) -> jinja2.Template:
    with template_time():
        compiled = _compile(source, strict)
    if isinstance(compiled, _Failure):
        raise TemplateSyntaxError(compiled.message, compiled.code, details=compiled.details)
    return compiled


class _Failure(NamedTuple):
    """Why a template cannot be compiled; cached, so that it is not compiled again."""

    message: str
    code: str | None = None
    details: dict[str, Any] | None = None


@lru_cache(maxsize=64)
def _compile(source: str, strict: bool) -> jinja2.Template | _Failure:
    if len(source) > MAX_SOURCE:
        return _Failure(
            f"the chat template has {len(source)} characters; the limit is {MAX_SOURCE}",
            "TEMPLATE_LIMIT_EXCEEDED",
        )
    try:
        return environment(strict).from_string(source)
    except TaluError:  # too many tokens, or too slow
        raise
    except jinja2.TemplateSyntaxError as error:
        return _Failure(
            f"the chat template is not valid Jinja: line {error.lineno}: {error.message}",
            details={"line": error.lineno},
        )
    except Exception as error:  # noqa: BLE001 (nested too deep for the parser or for Python)
        return _Failure(f"the chat template cannot be compiled: {error or type(error).__name__}")


def _translated(error: Exception, template: jinja2.Template) -> TemplateError:
    line = None
    step = error.__traceback__
    while step:
        if step.tb_frame.f_code.co_filename == "<template>":
            line = template.get_corresponding_lineno(step.tb_lineno)
        step = step.tb_next
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, RecursionError):
        what = "it recurses too deeply"
    elif isinstance(error, jinja2.TemplateError):
        what = str(error)
    message = f"the chat template failed{f' at line {line}' if line else ''}: {what}"
    undefined = isinstance(error, jinja2.UndefinedError)
    return (TemplateUndefinedError if undefined else TemplateError)(message, details={"line": line})
