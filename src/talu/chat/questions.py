"""Requests of the clients that need no chat: one message, a conversation, or a batch of texts."""

from collections.abc import (
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import talu.aio as aio
from talu.chat.answering import NO_TOOLS, Answering, Draft
from talu.chat.items import InputText, MessageItem
from talu.chat.open_calls import open_calls
from talu.chat.parsing import check_count
from talu.chat.requests import check_answerable
from talu.chat.user_message import BYTES, Message
from talu.config import GenerationConfig
from talu.deadline import Deadline, checked
from talu.error_text import shown
from talu.exceptions import TaluError, ValidationError
from talu.threads import thread_starts
from talu.tools.use import ToolUse
from talu.types import StopFlag, check_stop_flag, is_iterable

__all__ = ["aask_each", "ask_each", "batch_of", "conversation_of", "draft_of", "single"]

T = TypeVar("T")
MAX_TEXTS = 100_000
AT_ONCE = 32  # questions; half of the engine's 64 sequences, which other callers share


def batch_of(prompt: object) -> list[str] | None:
    """The texts of a batch; None if ``prompt`` is a single question.

    A list, an array or another ordered iterable of texts is a batch.

    Raises:
        ValidationError: an iterable other than a sequence has no order or yields anything but
            texts, or there are more than 100,000 texts.
    """
    if isinstance(prompt, str | BYTES | Mapping | MessageItem | InputText):
        return None
    if isinstance(prompt, Sequence):
        texts = list(prompt) if all(isinstance(entry, str) for entry in prompt) else None
        _check_size(texts)
        return texts
    if not isinstance(prompt, Iterable) or not is_iterable(prompt):
        return None
    if isinstance(prompt, Set) or hasattr(prompt, "columns"):
        remedy = (
            "a column of the table" if hasattr(prompt, "columns") else "a list, which is ordered"
        )
        wrong = f"prompt must be text, messages or a list of texts, got {type(prompt).__name__}"
        raise ValidationError(f"{wrong}; give {remedy}", details={"param": "prompt"})
    texts = list(islice(prompt, MAX_TEXTS + 1))
    _check_size(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            wrong = f"prompt {number} must be a text, got {shown(text)}"
            raise ValidationError(wrong, details={"param": "prompt", "index": number})
    return texts


def _check_size(texts: list[str] | None) -> None:
    if texts is not None and len(texts) > MAX_TEXTS:
        wrong = f"a batch has at most {MAX_TEXTS:,} prompts: ask for them in several calls"
        raise ValidationError(wrong, details={"param": "prompt"})


def single(prompt: Message, method: str = "stream") -> Message:
    """The prompt of a method; ``ValidationError`` if it is a batch of texts."""
    if batch_of(prompt) is not None:
        wrong = (
            f"{method} answers one question; ask takes a list of texts and returns their answers"
        )
        raise ValidationError(wrong, details={"param": "prompt"})
    return prompt


def conversation_of(
    prompt: object, deadline: Deadline | None = None
) -> Iterator[Mapping[str, Any]] | None:
    """The messages of a conversation, a list with dictionaries that have a role; else None.

    Reading them raises once the deadline has passed.
    """
    if isinstance(prompt, str | BYTES) or not isinstance(prompt, Sequence):
        return None
    if not any(isinstance(entry, Mapping) and "role" in entry for entry in prompt):
        return None
    check_count(prompt)
    return checked(prompt, deadline)


def draft_of(
    chat: Answering,
    prompt: Message,
    config: GenerationConfig,
    *,
    stop_flag: StopFlag | None,
    timeout: float | Deadline | None,
    use: ToolUse = NO_TOOLS,
) -> Draft:
    """The turn that sends ``prompt`` to a new chat, whose history holds the earlier messages.

    Raises:
        ValidationError: the last message is neither of the user nor a tool result, or a call
            before it has no result.
    """

    def draft(message: Message) -> Draft:
        try:
            return chat._draft(message, config, {}, stop_flag=stop_flag, timeout=timeout, use=use)
        except ValidationError as error:
            if error.details.get("param") == "message":  # its name in ``ask`` and ``stream``
                error.details["param"] = "prompt"
            raise

    if conversation_of(prompt) is None:
        return draft(prompt)
    last = check_answerable(chat.items, "prompt")
    if isinstance(last, MessageItem):
        chat.pop()
        return draft(last)
    if waiting := open_calls(chat.items):  # whoever wrote the messages chose these calls
        ids = ", ".join(shown(call.call_id) for call in waiting)
        wrong = f"the tool calls {ids} of the messages have no result: give each of them one"
        raise ValidationError(wrong, details={"param": "prompt"})
    return chat._resuming(draft(""))


def ask_each(
    texts: Sequence[str], ask: Callable[[str, StopFlag], T], stop_flag: StopFlag | None
) -> list[T]:
    """The answers to all texts, in order; 32 run concurrently, so that the engine batches them.

    The first failure cancels the others and is raised; ``details["index"]`` is the text's index.
    """
    check_stop_flag(stop_flag)
    if not texts:
        return []
    stop = StopFlag()
    if stop_flag is not None:
        stop_flag.when_signalled(stop.signal)
    with ThreadPoolExecutor(min(len(texts), AT_ONCE), "talu-ask") as pool:
        futures: list[Future[T]] = []
        try:
            with thread_starts():
                for text in texts:
                    futures.append(pool.submit(ask, text, stop))
            wait(futures, return_when=FIRST_EXCEPTION)
            return [_result(number, future) for number, future in enumerate(futures)]
        except BaseException:
            stop.signal()
            for future in futures:
                future.cancel()
            raise


def _result(number: int, future: "Future[T]") -> T:
    with _numbered(number):
        return future.result()


@contextmanager
def _numbered(number: int) -> Generator[None]:
    """Add the number of the question to an error."""
    try:
        yield
    except TaluError as error:
        error.details.setdefault("index", number)
        error.add_note(f"This is about prompt {number} of the list.")
        raise


async def aask_each(texts: Sequence[str], ask: Callable[[str], Awaitable[T]]) -> list[T]:
    """Like ``ask_each``, awaited."""
    free = aio.Semaphore(AT_ONCE)

    async def one(number: int, text: str) -> T:
        async with free:
            with _numbered(number):
                return await ask(text)

    tasks = [aio.create_task(one(number, text)) for number, text in enumerate(texts)]
    try:
        return list(await aio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await aio.gather(*tasks, return_exceptions=True)
        raise
