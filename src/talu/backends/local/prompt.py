"""Converts a request to the prompt of a local model, as text and token ids."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from talu.engine.engine import Engine
from talu.exceptions import EmptyPromptError, GenerationError, ValidationError
from talu.first_use import loaded
from talu.structured.places import has_place
from talu.tokenizer.encoding import Watch
from talu.tokenizer.tokenizer import TAGS, Tokenizer
from talu.tool_formats.description import Reasoning, ToolFormat
from talu.types import Request

__all__ = ["Prompt", "explaining_overflow", "prompt_of", "stop_notes", "watch_of"]


class Prompt(NamedTuple):
    """The model's input.

    Attributes:
        text: the prompt; special tokens are spelled out.
        ids: its tokens.
        in_reasoning: whether the template has begun reasoning in it.
        may_reason: whether the template knows reasoning, and does not end it in the prompt.
        reasoning: the texts around reasoning; None for ``<think>``.
        calls: how the model writes calls; None if it was offered no tools.
        explained: how it explains the form of the answer; see ``SchemaReport``.
        notes: differences between the request and what the model reads.
    """

    text: str
    ids: list[int]
    in_reasoning: bool = False
    may_reason: bool = False
    reasoning: Reasoning | None = None
    calls: ToolFormat | None = None
    explained: str | None = None
    notes: tuple[str, ...] = ()


def prompt_of(request: Request, engine: Engine, ref: str, *, must_fit: bool = False) -> Prompt:
    """The prompt of a request.

    Args:
        request: messages, or a raw prompt.
        engine: provides tokenizer and templates.
        ref: the model's name, for errors.
        must_fit: refuse a text that cannot fit before it is tokenized.

    Raises:
        EmptyPromptError: there is no message, text or token.
        GenerationError: the text is so long that it cannot fit (code
            ``GENERATION_CONTEXT_OVERFLOW``), or the request's time is over.
        TemplateError: the model has no chat template, or the template fails.
        TokenizerError: the text cannot be tokenized.
        ValidationError: the parts of the request contradict each other.
    """
    if request.messages is None:
        return _raw(request, engine, must_fit)
    for name in ("token_ids", "continue_from_token_id"):
        if getattr(request, name) is not None:
            raise ValidationError(
                f"{name} needs a raw prompt; with messages the template makes the prompt",
                details={"param": name},
            )
    if not request.messages:
        raise EmptyPromptError("there are no messages to answer")
    conversation_prompt = loaded("talu.backends.local.conversation", "conversation_prompt")
    prompt: Prompt = conversation_prompt(request, engine, ref, must_fit=must_fit)
    return prompt


@contextmanager
def explaining_overflow(request: Request) -> Generator[None]:
    """Say in the error of a prompt that is too long that the explanation of a form is in it."""
    try:
        yield
    except GenerationError as error:
        config = request.config
        is_explained = config.response_format is not None and config.inject_schema_prompt
        overflow = error.code == "GENERATION_CONTEXT_OVERFLOW"
        if not (overflow and is_explained and request.messages is not None):
            raise
        wrong = f"{error}, or leave the explanation of response_format out of it"
        raise GenerationError(
            f"{wrong} (inject_schema_prompt=False)", error.code, error.details
        ) from error


def stop_notes(sequences: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Notes on stop sequences that cannot occur, because they mix special tokens and text."""
    hidden = [token for token in tokenizer.special_tokens if token not in TAGS]
    return [
        f"the stop sequence {sequence[:100]!r} combines a special token with other text, but the "
        "text of an answer has no special tokens: it cannot occur; give the special token alone"
        for sequence in sequences
        if tokenizer.stop_token_id(sequence) is None and any(each in sequence for each in hidden)
    ]


def watch_of(request: Request, engine: Engine, text: str, must_fit: bool) -> Watch:
    """What checks the limits of a request now, and between the pieces of its prompt."""

    def watch(count: int | None) -> None:
        if request.deadline is not None:
            request.deadline.check()
        if must_fit:
            engine.check_length(text, count)

    watch(None)
    return watch


def _raw(request: Request, engine: Engine, must_fit: bool) -> Prompt:
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
        watch = watch_of(request, engine, text, must_fit)
        ids = tokenizer.encode(text, watch=watch) if text else []
    if request.continue_from_token_id is not None:
        engine.check_ids("continue_from_token_id", [request.continue_from_token_id])
        ids.append(request.continue_from_token_id)
        text += tokenizer.token_text(request.continue_from_token_id)
    if not ids:
        raise EmptyPromptError("the prompt is empty; give some text or token ids")
    left: tuple[str, ...] = ()
    if has_place(request):
        left = loaded("talu.structured.explanation", "explained")(request, unasked=True).notes
    return Prompt(text, ids, notes=left)
