"""What a form of the answer costs: tokens with and without a mask, in turn, and the first mask.

    python benchmarks/structured.py [--threads 2] [--rounds 5] [--tokens 96] [--json] [FILE ...]

The form allows letters, so a mask is computed for every token and none is forced; forced tokens
would make answers with a form faster. A first mask includes compiling a schema that is new.
Without a file it takes the shape of Qwen3-0.6B with random weights in Q4_0, whose vocabulary has
151,936 tokens.
"""

import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from command import Report, in_turn, options, spread
from files import quantised
from peers import random_prompt

from talu import Regex
from talu.engine.constraints import Constraint
from talu.engine.engine import Engine
from talu.engine.registry import acquire
from talu.sampling import SamplingParams
from talu.structured.formats import ResponseFormat, format_of
from talu.types import LocalBackend

LETTERS = format_of(Regex(r"[a-zA-Z ,.]{10000}"))
PROMPT = 32  # tokens


@dataclass
class Cost:
    """The figures of one file; of each round, but for the table.

    Attributes:
        table: seconds to build the table of the tokens, once for a model.
        free: tokens per second without a form.
        masked: the same with one.
        first_mask: milliseconds from a new schema to its first mask.
    """

    file: str
    table: float
    free: list[float] = field(default_factory=list)
    masked: list[float] = field(default_factory=list)
    first_mask: list[float] = field(default_factory=list)


def constraint(engine: Engine, form: ResponseFormat) -> Constraint:
    """What constrains one answer."""
    return Constraint(engine.masks, engine.grammars.compiled(form).begin(), None)


def rate(engine: Engine, tokens: int, form: ResponseFormat | None, number: int) -> float:
    """Tokens per second of an answer."""
    params = SamplingParams(max_tokens=tokens, temperature=0.0)
    given = None if form is None else constraint(engine, form)
    ticket = engine.submit(random_prompt(PROMPT, number), params, constraint=given)
    for _ in ticket:
        pass
    assert ticket.result is not None
    return ticket.result.timings.tokens_per_second or 0.0


def first_mask(engine: Engine, number: int) -> float:
    """Milliseconds for a schema that has not been compiled."""
    fields: dict[str, Any] = {
        f"field_{number}_{i}": {"type": ["string", "integer", "array"][i % 3]} for i in range(20)
    }
    form = format_of({"type": "object", "properties": fields, "required": list(fields)})
    start = time.perf_counter()
    constraint(engine, form).masks(())
    return 1000 * (time.perf_counter() - start)


def measure(file: Path, threads: int, tokens: int, rounds: int) -> Cost:
    """Measure one file."""
    lease = acquire(str(file), LocalBackend(num_threads=threads))
    engine = lease.engine
    start = time.perf_counter()
    _ = engine.grammars
    cost = Cost(file.name, time.perf_counter() - start)
    measures = [
        partial(rate, engine, tokens, None),
        partial(rate, engine, tokens, LETTERS),
        partial(first_mask, engine),
    ]
    cost.free, cost.masked, cost.first_mask = in_turn(measures, rounds)
    lease.release()
    return cost


def main() -> None:
    """Command line."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--tokens", type=int, default=96)
    given = parser.parse_args()
    given.files = given.files or [quantised("Q4_0")]
    report = Report(given, "tokens per second, milliseconds: median (minimum to maximum)")
    costs = []
    for file in given.files:
        cost = measure(file, given.threads, given.tokens, given.rounds)
        report.line(
            f"{cost.file}: free {spread(cost.free)}, masked {spread(cost.masked)}; first mask of a "
            f"new schema {spread(cost.first_mask)} ms; table of the tokens {cost.table:.2f} s"
        )
        costs.append(asdict(cost))
    report.end(costs)


if __name__ == "__main__":
    main()
