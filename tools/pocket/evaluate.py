"""Measure `talu/pocket` on questions that its training never contained, through talu's public API.

python tools/pocket/evaluate.py            print the figures
python tools/pocket/evaluate.py --card     and write them into the model card
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from corpus.conversation import Conversation, messages, pieces
from scoring import MEASUREMENTS, conversations

from talu import Client

CARD = Path(__file__).parents[2] / "src/talu/models/pocket/MODEL_CARD.md"
MOST = 256
OPEN, CLOSE = "<!-- figures -->", "<!-- end of figures -->"
Ask = Callable[[Sequence[Conversation]], list[str]]


def table(ask: Ask, chosen: str = "", wrong: int = 0) -> str:
    """Return the figures as a Markdown table, printing some `wrong` answers on the way."""
    rows = ["| held-out questions | number | right |", "|---|--:|--:|"]
    answered: dict[tuple[str, ...], list[str]] = {}
    for measurement in MEASUREMENTS:
        if chosen not in measurement.title:
            continue
        asked = tuple(conversations(measurement))
        key = tuple(map(repr, asked))
        if key not in answered:
            answered[key] = ask(asked)
        judged = [measurement.judge(*pair) for pair in zip(asked, answered[key], strict=True)]
        rows.append(
            f"| {measurement.title} | {len(judged)} | {100 * sum(judged) / len(judged):.0f} % |"
        )
        print(rows[-1], flush=True)
        bad = [
            pair
            for pair, good in zip(zip(asked, answered[key], strict=True), judged, strict=True)
            if not good
        ]
        for conversation, answer in bad[:wrong]:
            print(
                f"    {conversation.system!r} {[t.user for t in conversation.turns]} -> {answer!r}"
            )
    return "\n".join(rows)


def with_talu(asked: Sequence[Conversation], model: str = "talu/pocket") -> list[str]:
    """Return the greedy answers of a model."""
    with Client(model) as client:
        return [answer(client, one) for one in asked]


def answer(client: Client, conversation: Conversation) -> str:
    """Return the answer to the last question; definitions of tools go in as rendered text."""
    if conversation.tools:
        prompt = "".join(text for text, _ in pieces(conversation)[:-2])
        return client.raw_complete(prompt, temperature=0, max_tokens=MOST).text
    *history, last = messages(conversation)
    before = [message for message in history if message["role"] != "system"]
    chat = client.chat(system=conversation.system or None, messages=before or None)
    return chat.send(str(last["content"]), temperature=0, max_tokens=MOST).text


def write_card(figures: str) -> None:
    """Put the figures between the marks of the card."""
    head, rest = CARD.read_text(encoding="utf-8").split(OPEN)
    tail = rest.split(CLOSE)[1]
    CARD.write_text(f"{head}{OPEN}\n{figures}\n{CLOSE}{tail}", encoding="utf-8")


def main() -> None:
    """Measure, print, and write the card when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--card", action="store_true")
    parser.add_argument("--only", default="", help="measure the titles that contain this")
    parser.add_argument(
        "--wrong", type=int, default=0, help="print this many wrong answers of each"
    )
    parser.add_argument("--model", default="talu/pocket", help="another checkpoint folder")
    options = parser.parse_args()
    figures = table(partial(with_talu, model=options.model), options.only, options.wrong)
    if options.card:
        write_card(figures)


if __name__ == "__main__":
    main()
