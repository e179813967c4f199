"""Builds the requests and turns of raw completions, which use no chat and no template."""

from talu.chat.answer import ChatT
from talu.chat.history import History
from talu.chat.hosts import Host
from talu.chat.io import IO
from talu.chat.turn import Turn
from talu.config import GenerationConfig, check_boolean, check_token_id, check_token_ids
from talu.error_text import shown
from talu.exceptions import EmptyPromptError, ValidationError
from talu.types import Request, StopFlag

__all__ = ["raw_request", "raw_turn"]


def raw_request(
    prompt: str,
    system: str | None,
    config: GenerationConfig,
    *,
    token_ids: list[int] | None,
    continue_from_token_id: int | None,
    echo_prompt: bool,
) -> Request:
    """The request of a raw completion; ``system`` precedes the prompt, with a blank line between.

    Raises:
        EmptyPromptError: the prompt has no characters and no tokens.
        ValidationError: an argument is invalid, or has no meaning without a template.
    """
    for name, text in (("prompt", prompt), ("system", "" if system is None else system)):
        if not isinstance(text, str):
            wrong = f"{name} must be text, got {shown(text)}"
            raise ValidationError(wrong, details={"param": name})
    for name in ("chat_template", "extra_context"):
        if config.given.get(name) is not None:
            wrong = f"{name} has no meaning in a raw completion, which uses no template"
            raise ValidationError(wrong, details={"param": name})
    if config.given.get("allow_special_tokens") is False:
        wrong = "a raw completion always recognises special tokens: leave allow_special_tokens out"
        raise ValidationError(wrong, details={"param": "allow_special_tokens"})
    check_boolean("echo_prompt", echo_prompt)
    if continue_from_token_id is not None:
        check_token_id("continue_from_token_id", continue_from_token_id)
    if token_ids is not None:
        token_ids = check_token_ids("token_ids", token_ids, ordered=True)
    if system and token_ids is not None:
        wrong = "system= is text and cannot go before token_ids: put its tokens there"
        raise ValidationError(wrong, details={"param": "system"})
    if system:
        prompt = f"{system}\n\n{prompt}"
    if not prompt and not token_ids and continue_from_token_id is None:
        raise EmptyPromptError("the prompt is empty: give at least one character or token id")
    unused = "the text of the prompt was not used: token_ids of completion_opts stand in its place"
    return Request(
        notes=(unused,) if prompt and token_ids is not None else (),
        prompt=prompt,
        token_ids=None if token_ids is None else tuple(token_ids),
        continue_from_token_id=continue_from_token_id,
        echo_prompt=echo_prompt,
        config=config,
    )


def raw_turn(
    client: Host, model: str, io: IO, request: Request, stop_flag: StopFlag | None
) -> Turn[ChatT]:
    """A turn for the request, without a chat, that has not started."""
    turn: Turn[ChatT] = Turn(
        chat=None,
        model=model,
        history=History(),
        input_text=request.prompt or "",
        request=request,
        io=io,
        hooks=client.hooks,
        closing=client.router.closing,
    )
    turn.stop_with(stop_flag)
    return turn
