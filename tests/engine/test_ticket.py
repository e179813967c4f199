import asyncio
import contextlib
import gc
import threading

import pytest

from talu.engine.ticket import Mailbox, Piece, Progress, Result, Ticket
from talu.exceptions import GenerationError
from talu.types import FinishReason, Timings, Usage

RESULT = Result(FinishReason.STOP, Usage(), Timings())


async def collect(ticket: Ticket) -> list[str]:
    return [piece.text async for piece in ticket]


def test_pieces_come_in_order_and_then_the_result() -> None:
    mailbox = Mailbox()
    ticket = Ticket(mailbox)
    for item in (Piece("a"), Piece("b"), RESULT):
        mailbox.put(item)
    assert [piece.text for piece in ticket] == ["a", "b"]
    assert ticket.result is RESULT
    assert list(ticket) == []


def test_an_error_is_raised_once_and_ends_the_iteration() -> None:
    mailbox = Mailbox()
    ticket = Ticket(mailbox)
    mailbox.put(GenerationError("it broke"))
    with pytest.raises(GenerationError, match="it broke"):
        next(ticket)
    assert list(ticket) == []
    assert ticket.result is None


def test_a_waiting_thread_is_woken() -> None:
    mailbox = Mailbox()
    ticket = Ticket(mailbox)
    texts: list[str] = []
    reader = threading.Thread(target=lambda: texts.extend(piece.text for piece in ticket))
    reader.start()
    mailbox.put(Piece("a"))
    mailbox.put(RESULT)
    reader.join(10)
    assert texts == ["a"]


def test_a_waiting_task_is_woken_from_another_thread() -> None:
    mailbox = Mailbox()
    ticket = Ticket(mailbox)

    async def read() -> list[str]:
        reading = asyncio.create_task(collect(ticket))
        await asyncio.sleep(0)  # it waits now
        for item in (Piece("a"), Piece("b"), RESULT):
            await asyncio.to_thread(mailbox.put, item)
        return await reading

    assert asyncio.run(read()) == ["a", "b"]
    assert ticket.result is RESULT


def test_pieces_that_arrived_before_the_reader_are_read_without_waiting() -> None:
    mailbox = Mailbox()
    ticket = Ticket(mailbox)
    mailbox.put(Piece("a"))
    mailbox.put(RESULT)
    assert asyncio.run(collect(ticket)) == ["a"]


def test_an_item_that_comes_while_the_reader_lies_down_is_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mailbox = Mailbox()
    ticket = Ticket(mailbox)

    async def read() -> str:
        loop = asyncio.get_running_loop()
        create = loop.create_future

        def create_late() -> asyncio.Future[None]:
            mailbox.put(Piece("late"))  # after the first look, before anybody is known to wait
            return create()

        monkeypatch.setattr(loop, "create_future", create_late)
        waiting = ticket.__anext__()
        with contextlib.closing(waiting), pytest.raises(StopIteration) as stop:
            waiting.send(None)
        return str(stop.value.value.text)

    assert asyncio.run(read()) == "late"


def test_cancelling_the_task_that_waits_cancels() -> None:
    mailbox = Mailbox()
    ticket = Ticket(mailbox)

    async def read() -> None:
        reading = asyncio.create_task(collect(ticket))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(read())
    assert mailbox.cancelled


def test_a_piece_for_a_cancelled_task_is_ignored() -> None:
    mailbox = Mailbox()
    ticket = Ticket(mailbox)

    async def read() -> list[str]:
        reading = asyncio.create_task(collect(ticket))
        await asyncio.sleep(0)
        mailbox.put(Piece("a"))
        reading.cancel()
        mailbox.put(RESULT)
        await asyncio.gather(reading, return_exceptions=True)
        return await collect(ticket)

    assert asyncio.run(read()) in (["a"], [])


def test_a_closed_event_loop_is_a_reader_that_left() -> None:
    mailbox = Mailbox()
    ticket = Ticket(mailbox)
    waiting = ticket.__anext__()

    async def begin_to_wait() -> None:
        waiting.send(None)

    asyncio.run(begin_to_wait())
    mailbox.put(Piece("a"))
    assert mailbox.cancelled
    waiting.close()


def test_pieces_that_were_sent_can_be_read_after_cancelling() -> None:
    mailbox = Mailbox()
    ticket = Ticket(mailbox)
    mailbox.put(Piece("a"))
    ticket.cancel()
    mailbox.put(RESULT)
    assert [piece.text for piece in ticket] == ["a"]
    assert ticket.result is RESULT


def test_closing_ends_the_iteration_at_once() -> None:
    mailbox = Mailbox()
    ticket = Ticket(mailbox)
    mailbox.put(Piece("a"))
    ticket.close()
    assert mailbox.cancelled
    assert list(ticket) == []


def test_dropping_the_ticket_cancels() -> None:
    mailbox = Mailbox()
    Ticket(mailbox)
    gc.collect()
    assert mailbox.cancelled


def test_a_generation_that_never_began_only_queued() -> None:
    timings = Progress(3).timings()
    assert timings.queue_ms == timings.total_ms == timings.time_to_first_token_ms > 0
    assert timings.tokens_per_second is None


def test_the_rate_of_a_single_token_is_not_defined() -> None:
    progress = Progress(3)
    progress.start(0)
    progress.token()
    timings = progress.timings()
    assert (timings.generation_ms, timings.tokens_per_second) == (0, None)


def test_the_rate_counts_the_tokens_after_the_first() -> None:
    progress = Progress(3, 5, submitted=1.0, started=1.5, first=2.0, last=4.0)
    timings = progress.timings()
    assert (timings.queue_ms, timings.prefill_ms, timings.generation_ms) == (500, 500, 2000)
    assert (timings.time_to_first_token_ms, timings.tokens_per_second) == (1000, 2)


def test_an_abandoned_ticket_reports_the_generated_text() -> None:
    mailbox = Mailbox(7)
    ticket = Ticket(mailbox)
    mailbox.progress.start(cached_tokens=4)
    for _ in range(3):
        mailbox.progress.token()
        mailbox.put(Piece("a"))
    next(ticket)
    ticket.close()
    left = ticket.so_far()
    assert (left.finish_reason, left.usage) == (FinishReason.CANCELLED, Usage(7, 3, 4))
    assert left.timings.tokens_per_second > 0
