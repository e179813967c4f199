"""Ctrl-C wherever the interpreter handles signals: the chat stays usable, and every hook sees a
whole generation or none.

Python handles signals when a function starts or resumes and when a built-in function returns; a
profile function sees these points. The frames of the interrupted call stay alive, as they do in an
interactive session.
"""

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from talu import Choice, Client, ModelSpec, Profile
from talu.backends.scripted import ScriptedModel
from talu.chat import Chat, Hook, StreamingResponse
from talu.chat.interrupts import iterate, run
from talu.exceptions import EndpointError

pytestmark = [
    pytest.mark.usefixtures("home"),
    # Warnings of an interrupt before the first step of a coroutine, or inside a finalizer.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Watch(Hook):
    """Records the calls; it is never interrupted itself."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_generation_start(self, chat, input_text, *, config=None) -> None:
        self.told.append("start")

    def on_first_token(self, chat, time_ms) -> None:
        self.told.append("first")

    def on_generation_end(self, chat, response, *, error=None) -> None:
        assert response is None or error is None
        told_first = self.told[-1] == "first"
        self.told.append("end" if told_first or not response else f"end without {response.tokens}")


TESTS = str(Path(__file__).parent.parent)  # whose functions are not interrupted
WHOLE = ["start", "first", "end"]
TOLD = [[], ["start", "end"], ["start", "end without []"], WHOLE]


def interrupted(use: Callable[[Any], None], chat: Any, point: int) -> BaseException | None:
    """Interrupt the use at its n-th point; ``EOFError`` when it has fewer."""
    seen = 0

    def see(frame: Any, event: str, _: object) -> None:
        nonlocal seen
        if event in ("call", "c_return") and not frame.f_code.co_filename.startswith(TESTS):
            seen += 1
            if seen == point:
                raise KeyboardInterrupt

    gc.disable()  # do not interrupt finalizers of other chats
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
    return None  # it hit a finalizer, which swallows exceptions


def send(chat: Chat) -> None:
    chat.send("question")


def ask_again(chat: Chat) -> None:
    chat.send("question", response_format=Choice(["three"]), validation_retries=1)


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


def check(use: Callable[[Chat], None], profile: Profile | None, *, breaks: bool = False) -> int:
    """Interrupt the use at each of its points, and return their number.

    Args:
        use: what is interrupted.
        profile: stores the chat.
        breaks: the connection breaks at the end of the interrupted answer.
    """
    point = 0
    connection = {"breaks": breaks}

    def end() -> None:
        if connection["breaks"]:
            raise EndpointError("it broke", "STREAM_BROKEN")

    script = ["one", " two", end]
    with suppress(EOFError):
        for point in count(1):
            hooks = Watch(), Watch()
            model = ModelSpec("m", ScriptedModel(script, script, script))
            client = Client(model, profile=profile, hooks=hooks)
            chat = client.chat().append("user", "before")
            connection["breaks"] = breaks
            alive = interrupted(use, chat, point)  # releases the frames as well
            connection["breaks"] = False
            latest = chat.last_response
            if isinstance(latest, StreamingResponse) and latest._outcome.unread:
                latest.close()  # interrupted while it was being returned
            chat.send("next")
            texts = [item.text for item in chat.items]
            assert texts[:-2] in HISTORIES, (point, alive)
            assert texts[-2:] == ["next", "one two"], point
            if profile is not None:
                again = client.chat(session_id=chat.session_id)
                assert list(again.items) == list(chat.items), point
            for hook in hooks:
                assert hook.told[:-3] in TOLD, (point, alive)
                assert hook.told[-3:] == WHOLE, point
    return point


@pytest.mark.parametrize("stored", [False, True], ids=["kept", "stored"])
@pytest.mark.parametrize("use", [send, read, leave, text, edit])
def test_a_chat_answers_after_an_interrupt_at_any_point(
    use: Callable[[Chat], None], stored: bool
) -> None:
    assert check(use, Profile("work") if stored else None) > 20


def test_a_chat_answers_after_an_interrupt_of_an_answer_that_is_asked_for_again() -> None:
    assert check(ask_again, None) > 20


@pytest.mark.parametrize(("use", "stored"), [(send, True), (read, False)])
def test_a_chat_answers_after_an_interrupt_of_an_answer_that_breaks(
    use: Callable[[Chat], None], stored: bool
) -> None:
    def use_broken(chat: Chat) -> None:
        with suppress(EndpointError):
            use(chat)

    assert check(use_broken, Profile("work") if stored else None, breaks=True) > 20


def test_an_interrupt_of_the_next_call_loses_nothing_of_a_stream_that_was_left_unread() -> None:
    class Balance(Hook):
        def __init__(self) -> None:
            self.starts, self.ends = 0, 0

        def on_generation_start(self, chat, input_text, *, config=None) -> None:
            self.starts += 1

        def on_generation_end(self, chat, response, *, error=None) -> None:
            self.ends += 1

    point = 0
    with suppress(EOFError):
        for point in count(1):
            hook = Balance()
            model = ModelSpec("m", ScriptedModel(*["one two"] * 3))
            chat = Client(model, hooks=[hook]).chat()
            unread = chat("question")
            interrupted(send, chat, point)
            chat.send("next")
            assert repr(unread).endswith("cancelled before it was read)"), point
            assert chat.items.last.text == "one two"
            assert hook.starts == hook.ends, point
    assert point > 20


def ask(client: Client) -> None:
    client.ask("question")


def complete(client: Client) -> None:
    client.raw_complete("question")


def stream(client: Client) -> None:
    for _ in client.stream("question"):
        pass


@pytest.mark.parametrize("use", [ask, complete, stream])
def test_an_interrupt_of_an_answer_without_a_chat_hides_nothing_from_the_hooks(
    use: Callable[[Client], None],
) -> None:
    point = 0
    with suppress(EOFError):
        for point in count(1):
            hooks = Watch(), Watch()
            client = Client(ModelSpec("m", ScriptedModel("one two")), hooks=hooks)
            interrupted(use, client, point)
            if any(hook.told not in TOLD for hook in hooks):
                assert use is stream, point
                gc.collect()  # until here its exception kept the stream alive
                for thread in threading.enumerate():
                    if thread.name == "talu-ending":
                        thread.join()
            for hook in hooks:
                assert hook.told in TOLD, point
    assert point > 20


async def numbers(log: list[str]) -> AsyncGenerator[int]:
    try:
        for number in range(3):
            yield number
    finally:
        log.append("closed")


def test_a_coroutine_that_never_suspends_gives_its_value() -> None:
    async def value() -> int:
        return 7

    assert run(value()) == 7


def test_a_coroutine_that_suspends_is_closed_and_an_error() -> None:
    async def sleep() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            log.append("closed")

    log: list[str] = []
    with pytest.raises(RuntimeError, match="suspended in a sync call"):
        run(sleep())
    assert log == ["closed"]


def test_iterating_gives_every_item_and_closes_at_the_end() -> None:
    log: list[str] = []
    assert list(iterate(numbers(log))) == [0, 1, 2]
    assert log == ["closed"]


def test_closing_the_iterator_closes_the_async_generator_at_once_inside_a_loop_too() -> None:
    async def main() -> None:
        items = iterate(numbers(log))
        next(items)
        items.close()
        assert log == ["closed"]

    log: list[str] = []
    asyncio.run(main())


def test_an_exception_passes_through() -> None:
    async def broken() -> AsyncGenerator[int]:
        yield 1
        raise KeyError("mine")

    items = iterate(broken())
    assert next(items) == 1
    with pytest.raises(KeyError):
        next(items)
