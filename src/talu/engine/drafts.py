"""Drafts the next tokens of a sequence from its own text, where that is expected to save time.

The text that followed an earlier occurrence of the last tokens is the draft. A step computes a row
for each of its tokens and samples from all rows, so the tokens are those of plain decoding; the
draft only decides how many of them a step gives. The method is prompt lookup decoding:
https://github.com/apoorvumang/prompt-lookup-decoding
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from talu.engine.ngrams import MATCH, NGrams

__all__ = ["LONGEST", "ROWS", "Drafts", "StepPlan", "StepTimes"]

LONGEST = 15  # tokens of a draft
ROWS = 16  # of a step with drafts, without those of prompts
SLOWER = 1.5  # times that a step with drafts may take, if other sequences wait for it

# Drafts may cost a sequence so many tokens in all: at the start, and for each token of the answer.
CREDIT = 0.5
CREDIT_PER_TOKEN = 0.03
MOST_CREDIT = 4.0  # that accepted drafts can add up to

CLASSES = (0, 0, 0, 1, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5)  # of matches, by their length
EXPECTED = (0.45, 0.6, 0.7, 0.8, 0.9, 0.95)  # correct drafts in each class, before any was seen
TRUST = 4.0  # number of drafts that the expectation counts as
DECAY = 0.97  # of the weight of a draft with each later one

ROW_TIME = 0.25  # of a further row, in times of a single row, before one was measured
RATE = 0.2  # at which a measured time replaces the estimate
MEMORY = 256  # steps


class StepTimes:
    """Estimates the time of a step from its number of rows, and learns from measured steps."""

    def __init__(self) -> None:
        self._times: dict[int, float] = {}
        self._recent: set[int] = set()
        self._steps = 0

    def estimate(self, rows: int) -> float:
        """The time of a step, in any unit: only ratios mean something before the first step."""
        known = self._times.get(rows)
        if known is not None:
            return known
        if not self._times:
            return _relative(rows)
        nearest = min(self._times, key=lambda other: abs(other - rows))
        return self._times[nearest] * _relative(rows) / _relative(nearest)

    def measured(self, rows: int, seconds: float) -> None:
        """Learn from a step; one that another process delayed has a limited effect."""
        if self._times:
            expected = self.estimate(rows)
            limited = min(max(seconds, expected / 2), 2 * expected)
            self._times[rows] = expected + RATE * (limited - expected)
        else:
            self._times[rows] = seconds
        self._recent.add(rows)
        self._steps += 1
        if self._steps % MEMORY == 0:  # a time that prevents further measurements is forgotten
            self._times = {each: self._times[each] for each in self._recent}
            self._recent.clear()


class StepPlan:
    """The decode rows and drafts of one step, and the tokens that it is expected to give."""

    def __init__(self, times: StepTimes, sequences: int) -> None:
        """Plan one row for each of these sequences, to which drafts can be added."""
        self._times = times
        self._sequences = sequences
        self._rows = sequences
        self._tokens = float(sequences)
        self._plain = times.estimate(sequences)
        self._time = self._plain

    @property
    def room(self) -> int:
        """The number of rows that can be added."""
        return ROWS - self._rows

    def add(self, chances: Iterator[float], credit: float) -> tuple[int, float]:
        """Add the draft rows of a sequence that give the most tokens per time.

        Args:
            chances: that each draft token is accepted if all before it are.
            credit: what they may cost, in tokens.

        Returns:
            their number, and what they cost: the tokens that plain decoding gives in that time.
        """
        best, cost, expected, chance = 0, 0.0, self._tokens, 1.0
        before, rows = self._time, self._rows
        for count, each in enumerate(chances, 1):
            time = self._times.estimate(rows + count)
            price = self._sequences * (time - before) / self._plain
            too_slow = self._sequences > 1 and time > SLOWER * self._plain
            if too_slow or price > credit or count > best + 2:
                break
            chance *= each
            expected += chance
            if expected / time > self._tokens / self._time:
                best, cost = count, max(0.0, price)
                self._rows, self._tokens, self._time = rows + count, expected, time
        return best, cost


class Drafts:
    """Drafts for one sequence.

    Whether a draft pays depends on how often such drafts were correct, and on how long a row takes.
    Steps without a draft are also compared with what the draft would have been, which costs no row.
    A budget limits what drafts can cost in all, however the text continues: at most ``CREDIT`` and
    ``CREDIT_PER_TOKEN`` more than they have saved.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        """Draft what follows these tokens, to which the caller appends."""
        self._tokens = tokens
        self._ngrams = NGrams(tokens)
        self._correct = [TRUST * each for each in EXPECTED]
        self._seen = [TRUST] * len(EXPECTED)
        self._credit = CREDIT
        self._guess: list[int] = []  # for the tokens from _position on
        self._drafted = 0  # how many of them were drafted
        self._length = 0  # of the match that they follow
        self._position = len(tokens)

    def propose(
        self, plan: StepPlan, most: int, room: Callable[[int], int] = int
    ) -> tuple[int, ...]:
        """The draft for the next step, which is often empty.

        Args:
            plan: the step.
            most: tokens that the sequence can use.
            room: how many tokens of a draft the cache can hold.
        """
        self._learn()
        most = min(most, LONGEST, plan.room)
        found = self._ngrams.find() if most > 0 else None
        if found is None:
            return ()
        place, self._length = found
        count, cost = plan.add(islice(self._chances(), most), self._credit)
        self._credit -= cost
        self._drafted = room(count) if count else 0
        self._guess = self._ngrams.continuation(place, max(1, self._drafted))
        return tuple(self._guess[: self._drafted])

    def _learn(self) -> None:
        """Compare the last guess with the tokens since then."""
        start, end = self._position, len(self._tokens)
        saved = 0
        for number, guess in enumerate(self._guess[: end - start]):
            correct = guess == self._tokens[start + number]
            kind = CLASSES[min(self._length + number, MATCH)]
            self._correct[kind] *= DECAY
            self._correct[kind] += (1 - DECAY) * TRUST * EXPECTED[kind] + correct
            self._seen[kind] *= DECAY
            self._seen[kind] += (1 - DECAY) * TRUST + 1
            if not correct:
                break
            saved += number < self._drafted
        self._credit += CREDIT_PER_TOKEN * (end - start) + saved
        self._credit = min(self._credit, MOST_CREDIT)
        self._position, self._guess, self._drafted = end, [], 0

    def _chances(self) -> Iterator[float]:
        for length in range(self._length, self._length + LONGEST):
            kind = CLASSES[min(length, MATCH)]
            yield self._correct[kind] / self._seen[kind]


def _relative(rows: int) -> float:
    return 1 + ROW_TIME * (rows - 1)
