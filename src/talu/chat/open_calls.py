"""Finds the tool calls of a history that wait for a result, and puts results in their order."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from talu.chat.items import FunctionCallItem, FunctionCallOutputItem, Item, ItemStatus, is_name
from talu.error_text import nearest, shown
from talu.exceptions import ToolExecutionError, ValidationError
from talu.first_use import loaded
from talu.tools.calls import ToolRun, told

__all__ = ["ends_with", "open_calls", "output_of", "outputs_of", "results_in_order"]


def open_calls(items: Sequence[Item]) -> list[FunctionCallItem]:
    """The calls at the end of a history that have no result; not those that were cut off."""
    calls, outputs = _last_group(items)
    answered = Counter(item.call_id for item in outputs)
    found = []
    for call in calls:
        if answered[call.call_id]:
            answered[call.call_id] -= 1
        elif call.status is not ItemStatus.INCOMPLETE:
            found.append(call)
    return found


def ends_with(items: Sequence[Item], last: Item) -> bool:
    """Whether a history ends with an item, or with results of calls after it."""
    for item in reversed(items):
        if item is last:
            return True
        if not isinstance(item, FunctionCallOutputItem):
            return False
    return False


def _last_group(
    items: Sequence[Item],
) -> tuple[list[FunctionCallItem], list[FunctionCallOutputItem]]:
    """The calls and the results at the end of a history, in order."""
    calls: list[FunctionCallItem] = []
    outputs: list[FunctionCallOutputItem] = []
    for item in reversed(items):
        if isinstance(item, FunctionCallOutputItem) and not calls:
            outputs.append(item)
        elif isinstance(item, FunctionCallItem):
            calls.append(item)
        else:
            break
    return calls[::-1], outputs[::-1]


def results_in_order(items: Iterable[Item]) -> list[Item]:
    """The items, with the results of each answer in the order of its calls.

    They are stored in the order in which they came, and some templates tell them by their order.
    """
    ordered: list[Item] = []
    calls: list[str] = []
    results: list[FunctionCallOutputItem] = []

    def add_results() -> None:
        place = {call_id: number for number, call_id in reversed(list(enumerate(calls)))}
        results.sort(key=lambda item: place.get(item.call_id, len(calls)))
        ordered.extend(results)
        results.clear()

    for item in items:
        if isinstance(item, FunctionCallOutputItem):
            results.append(item)
            continue
        if results:
            add_results()
            calls.clear()
        if isinstance(item, FunctionCallItem):
            calls.append(item.call_id)
        else:
            calls.clear()
        ordered.append(item)
    add_results()
    return ordered


def output_of(run: ToolRun) -> FunctionCallOutputItem:
    """The item of a call that was carried out, or that failed."""
    status = ItemStatus.COMPLETED if run.error is None else ItemStatus.FAILED
    return FunctionCallOutputItem(
        call_id=run.call.id, output=run.output, name=_name(run.call.name), status=status
    )


def _name(name: str) -> str | None:
    """The name of a tool for an item; models may write names that no tool can have."""
    return name if is_name(name) else None


def outputs_of(items: Sequence[Item], results: object) -> list[FunctionCallOutputItem]:
    """The items of results that the caller gives.

    Args:
        items: the history, at whose end the calls are.
        results: the result of each call by its id: a value, or an exception for a failure.

    Raises:
        ValidationError: an id is unknown, or its call has a result already.
        ToolExecutionError: a result has no JSON form.
    """
    if not isinstance(results, Mapping):
        wrong = f"results must be a dictionary from ids of calls to results, got {shown(results)}"
        raise ValidationError(wrong, details={"param": "results"})
    waiting = {call.call_id: call for call in open_calls(items)}
    answered = {item.call_id for item in _last_group(items)[1]}
    for call_id in results:
        if call_id in waiting:
            continue
        known = ", ".join(map(shown, waiting)) or "none"
        wrong = f"there is no open tool call {shown(call_id)}; open are: {known}"
        if call_id in answered:
            wrong = f"the tool call {shown(call_id)} has a result already"
        elif isinstance(call_id, str):
            wrong += nearest(call_id, waiting)
        raise ValidationError(wrong, details={"param": "results", "call_id": call_id})
    return [
        _output(call, results[call_id]) for call_id, call in waiting.items() if call_id in results
    ]


def _output(call: FunctionCallItem, value: Any) -> FunctionCallOutputItem:
    status = ItemStatus.COMPLETED
    if isinstance(value, BaseException):
        error = value if isinstance(value, ToolExecutionError) else None
        error = error or ToolExecutionError(f"{type(value).__name__}: {value}")
        value, status = told(error), ItemStatus.FAILED
    text = loaded("talu.tools.results", "result_text")(value)
    return FunctionCallOutputItem(
        call_id=call.call_id, output=text, name=_name(call.name), status=status
    )
