"""A request into the prompt that a model in this process reads: text and token ids.

Knows templates and tokenizers. Refuses to generate.
"""

from talu.engine.engine import Engine
from talu.exceptions import EmptyPromptError, TemplateError, ValidationError
from talu.template.limits import template_time
from talu.template.prompt_template import PromptTemplate
from talu.template.render import render, traits
from talu.types import Request

__all__ = ["prompt_of"]


@template_time()
def prompt_of(request: Request, engine: Engine, ref: str) -> tuple[str, list[int]]:
    """The prompt as text and as token ids.

    Args:
        request: messages, or a raw prompt.
        engine: whose tokenizer and templates are used.
        ref: the model's name, for errors.

    Raises:
        EmptyPromptError: there is neither a message nor a text nor a token.
        TemplateError: the model has no chat template, or the template fails.
        ValidationError: something in the request does not go together.
    """
    if request.messages is None:
        return _raw(request, engine)
    for name in ("token_ids", "continue_from_token_id"):
        if getattr(request, name) is not None:
            raise ValidationError(
                f"{name} needs a raw prompt; with messages the template makes the prompt",
                details={"param": name},
            )
    if not request.messages:
        raise EmptyPromptError("there are no messages to answer")
    tokenizer = engine.tokenizer
    source = _template(request, engine, ref)
    text = render(
        source,
        request.messages,
        tools=request.tools,
        add_generation_prompt=request.add_generation_prompt,
        tokens=tokenizer.names,
        extra=request.config.extra_context,
    )
    # A template writes the special tokens itself; without one the tokenizer adds them.
    raw = source == PromptTemplate.RAW.source
    return text, tokenizer.encode(text, special_tokens=raw)


def _template(request: Request, engine: Engine, ref: str) -> str:
    templates = engine.tokenizer.chat_templates
    source = request.chat_template
    if source is None and request.tools:
        source = templates.get("tool_use")
    if source is None:
        source = templates.get("default")
    if source is None:
        raise TemplateError(
            f"{ref} has no chat template: it is made for raw completions; give a "
            "chat_template, or use raw_complete",
            "TEMPLATE_NOT_FOUND",
        )
    if request.tools and not traits(source).tools:
        raise ValidationError(
            f"the chat template of {ref} does not show tools to the model; choose a "
            "model that was trained with tools, or give a chat_template that lists them",
            details={"param": "tools"},
        )
    return source


def _raw(request: Request, engine: Engine) -> tuple[str, list[int]]:
    tokenizer = engine.tokenizer
    if request.tools:
        raise ValidationError(
            "tools need messages: a raw prompt has no template that could show them",
            details={"param": "tools"},
        )
    if request.token_ids is not None:
        engine.check_ids("token_ids", request.token_ids)
        ids = list(request.token_ids)
        text = tokenizer.decode(ids, skip_special_tokens=False)
    else:
        text = request.prompt or ""
        ids = tokenizer.encode(text) if text else []
    if request.continue_from_token_id is not None:
        engine.check_ids("continue_from_token_id", [request.continue_from_token_id])
        ids.append(request.continue_from_token_id)
        text += tokenizer.token_text(request.continue_from_token_id)
    if not ids:
        raise EmptyPromptError("the prompt is empty; give some text or token ids")
    return text, ids
