"""Runs a batch: answers several rows at a time, and writes their results in order."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from talu.batch.answers import answer, failed, result_of
from talu.batch.results import Results
from talu.batch.rows import Row
from talu.exceptions import GenerationError
from talu.server.failures import Failure
from talu.server.service import Service

__all__ = ["Totals", "run"]

AHEAD = 8  # times as many rows as run at a time may be done before the first of them
OF_ROWS = (400, 404, 413)  # statuses of failures of a row: its fields, its model, its size


@dataclass
class Totals:
    """What a run has done.

    Attributes:
        skipped: rows that were done before.
        done: rows that were answered.
        failed: rows whose line says why they were not.
        prompt_tokens, completion_tokens: of all answers, as far as they are known.
    """

    skipped: int = 0
    done: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _End(NamedTuple):
    """How a row has ended."""

    line: dict[str, Any]
    failure: Failure | None
    usage: dict[str, Any]


async def run(
    rows: Iterable[Row],
    results: Results,
    service: Service,
    *,
    model: str | None = None,
    concurrency: int = 32,
    keep_going: bool = False,
    progress: Callable[[Totals], object] = lambda totals: None,
) -> Totals:
    """Answer the rows that have no result yet.

    Args:
        rows: all rows of the batch, in order.
        results: where the results go.
        service: has the models.
        model: answers all rows; None for the model that each row names, or else the default one.
        concurrency: rows at a time.
        keep_going: write failures of models and servers as results of their rows.
        progress: called after each result.

    Raises:
        GenerationError: a model or a server failed, and not because of its row (code
            ``BATCH_STOPPED``). The row has no result: the next run begins with it.
        ValidationError: the results are of other rows.
    """
    waiting = iter(rows)
    totals = Totals(skipped=results.skip_done(waiting))
    window = _Window(service, model, concurrency, keep_going)
    try:
        for row in waiting:
            window.add(row)
            while window.is_full or window.has_result:
                _write(await window.first(), results, totals)
                progress(totals)
        while window.rows:
            _write(await window.first(), results, totals)
            progress(totals)
    finally:
        await window.close()
    return totals


class _Window:
    """The rows that are being answered, or wait for the result of one before them.

    Attributes:
        rows: with their tasks, in order.
    """

    def __init__(
        self, service: Service, model: str | None, concurrency: int, keep_going: bool
    ) -> None:
        self.rows: deque[tuple[Row, asyncio.Task[_End]]] = deque()
        self._service = service
        self._model = model
        self._keep_going = keep_going
        self._places = asyncio.Semaphore(concurrency)
        self._most = AHEAD * concurrency
        self._stopped = False

    @property
    def is_full(self) -> bool:
        """Whether a row has to end before another one is added."""
        return len(self.rows) >= self._most

    @property
    def has_result(self) -> bool:
        """Whether the first row has ended."""
        return bool(self.rows) and self.rows[0][1].done()

    def add(self, row: Row) -> None:
        """Answer a row, when there is a place for it."""
        self.rows.append((row, asyncio.create_task(self._answer(row))))

    async def _answer(self, row: Row) -> _End:
        async with self._places:
            if self._stopped:  # a row before it has stopped the batch
                await asyncio.get_running_loop().create_future()
            try:
                body = await answer(row, self._service, self._model)
            except Failure as failure:
                self._stopped = self._stopped or self._stops(failure)
                return _End(failed(row, failure), failure, {})
        return _End(result_of(row, body), None, body.get("usage") or {})

    async def first(self) -> _End:
        """How the first row has ended; it leaves the window.

        Raises:
            GenerationError: its failure stops the batch.
        """
        row, task = self.rows[0]
        end = await task
        failure = end.failure
        if failure is not None and self._stops(failure):
            raise GenerationError(
                f"the batch stopped at row {row.id!r} (line {row.line}): "
                f"{failure.hidden or failure}; run it again to go on from there, or with "
                "keep_going to write such failures as results",
                "BATCH_STOPPED",
                {"line": row.line, "id": row.id, "code": failure.code},
            ) from failure
        self.rows.popleft()
        return end

    def _stops(self, failure: Failure) -> bool:
        return not self._keep_going and failure.status not in OF_ROWS

    async def close(self) -> None:
        """Stop all rows."""
        tasks = [task for _, task in self.rows]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _write(end: _End, results: Results, totals: Totals) -> None:
    results.write(end.line)
    if end.failure is None:
        totals.done += 1
    else:
        totals.failed += 1
    usage = end.usage
    totals.prompt_tokens += usage.get("prompt_tokens") or usage.get("input_tokens") or 0
    totals.completion_tokens += usage.get("completion_tokens") or usage.get("output_tokens") or 0
