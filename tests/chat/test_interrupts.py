"""Ctrl-C at every point where the interpreter takes it: the chat goes on as if it had not begun.

A signal is taken when a function begins or goes on and when a call of a built-in function comes
back; a profile function sees these points. The frames of the interrupted call stay alive, as they
do in an interactive session.
"""

import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest

from talu import Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel
from talu.chat import Chat, Hook, StreamingResponse

pytestmark = [
    pytest.mark.usefixtures("home"),
    # An interrupt before the first step of a coroutine, and one that hits a finalizer.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def interrupted(use: Callable[[Chat], None], chat: Chat, point: int) -> BaseException | None:
    """Interrupt the use at its n-th point; ``EOFError`` when it has fewer."""
    seen = 0

    def see(frame: Any, event: str, _: object) -> None:
        nonlocal seen
        if event in ("call", "c_return") and frame.f_code.co_filename != __file__:
            seen += 1
            if seen == point:
                raise KeyboardInterrupt

    gc.disable()  # no finalizer of another chat is meant
    sys.setprofile(see)
    try:
        use(chat)
    except KeyboardInterrupt as error:
        return error
    finally:
        sys.setprofile(None)
        gc.enable()
    if seen < point:
        raise EOFError
    return None  # it hit a finalizer, which nothing can leave


def send(chat: Chat) -> None:
    chat.send("question")


def read(chat: Chat) -> None:
    for _ in chat("question"):
        pass


def leave(chat: Chat) -> None:
    with chat("question") as stream:
        for _ in stream:
            break


def text(chat: Chat) -> None:
    assert chat("question").text


def edit(chat: Chat) -> None:
    chat.append("user", "question")


HISTORIES = [
    ["before"],
    ["before", "question"],
    ["before", "question", ""],
    ["before", "question", "one"],
    ["before", "question", "one two"],
]


@pytest.mark.parametrize("stored", [False, True], ids=["kept", "stored"])
@pytest.mark.parametrize("use", [send, read, leave, text, edit])
def test_after_an_interrupt_anywhere_the_next_answer_comes(
    use: Callable[[Chat], None], stored: bool
) -> None:
    profile = Profile("work") if stored else None
    point = 0
    with suppress(EOFError):
        for point in count(1):
            client = Client(
                ModelSpec("m", ScriptedModel("one two", "one two")), profile=profile, hooks=[Hook()]
            )
            chat = client.chat().append("user", "before")
            alive = interrupted(use, chat, point)  # its frames too
            if chat.last_response is not None and chat.last_response._turn.unread:
                assert isinstance(chat.last_response, StreamingResponse)
                chat.last_response.close()  # the interrupt came when it was being handed out
            chat.send("next")
            texts = [item.text for item in chat.items]
            assert texts[:-2] in HISTORIES, (point, alive)
            assert texts[-2:] == ["next", "one two"], point
            if profile is not None:
                again = client.chat(session_id=chat.session_id)
                assert list(again.items) == list(chat.items), point
    assert point > 20
