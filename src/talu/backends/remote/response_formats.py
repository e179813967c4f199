"""Writes response formats in the forms of the servers. This module is pure.

OpenAI: https://platform.openai.com/docs/guides/structured-outputs, Anthropic:
https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs, vLLM:
https://docs.vllm.ai/en/latest/features/structured_outputs.html, SGLang:
https://docs.sglang.ai/advanced_features/structured_outputs.html, and the README of llama.cpp's
server.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from talu.backends.remote.providers import Dialect
from talu.backends.remote.strict import strict_problem
from talu.structured.formats import ResponseFormat

__all__ = ["form_fields"]

Fields = dict[str, Any]


def form_fields(form: ResponseFormat, dialect: Dialect | None, *, raw: bool) -> Fields | None:
    """The fields of a body that ask for a form; None if the server has no such form.

    Args:
        form: the form.
        dialect: how the server wants it; None if it has none.
        raw: for a raw completion, not a chat.
    """
    match dialect:
        case "openai" if not raw:
            return _openai(form) if form.kind == "json" else None
        case "anthropic" if not raw:
            return _anthropic(form) if form.kind == "json" else None
        case "vllm":
            return _vllm(form)
        case "sglang":
            return _sglang(form, raw=raw)
        case "llamacpp":
            return _llamacpp(form, raw=raw)
    return None


def _openai(form: ResponseFormat) -> Fields:
    strict = strict_problem(form.schema or {}) is None
    named = {"name": form.name, "schema": form.schema, "strict": strict}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _anthropic(form: ResponseFormat) -> Fields:
    return {"output_config": {"format": {"type": "json_schema", "schema": form.schema}}}


def _vllm(form: ResponseFormat) -> Fields:
    match form.kind:
        case "json":
            wanted: Mapping[str, Any] = {"json": form.schema}
        case "regex":
            wanted = {"regex": form.source}
        case "choice":
            wanted = {"choice": list(form.options)}
        case _:
            wanted = {"grammar": form.source}
    return {"structured_outputs": wanted}


def _sglang(form: ResponseFormat, *, raw: bool) -> Fields | None:
    match form.kind:
        case "json":
            return {"json_schema": form.source} if raw else _openai(form)
        case "regex":
            return {"regex": form.source}
        case "choice":
            return {"regex": "|".join(f"({re.escape(option)})" for option in form.options)}
        case "gbnf":
            return {"ebnf": form.source}
    return None


def _llamacpp(form: ResponseFormat, *, raw: bool) -> Fields | None:
    match form.kind:
        case "json":
            return {"json_schema": form.schema} if raw else _openai(form)
        case "choice":
            options = " | ".join(json.dumps(option, ensure_ascii=False) for option in form.options)
            return {"grammar": f"root ::= {options}"}
        case "gbnf":
            return {"grammar": form.source}
    return None
