"""Speculation: the same answers with and without drafts, in turn.

    python benchmarks/speculation.py [--threads 2] [--rounds 5] [--tokens 200] [--json] [FILE ...]

A quotation, a summary and an edit repeat their prompt; free text does not, and shows what drafts
cost where they do not pay. The program ends if an answer with drafts has other tokens. Without a
file it takes the two that the tests use.
"""

import statistics
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from command import Report, options, spread
from files import default_files

from talu.engine.engine import Engine
from talu.engine.registry import acquire
from talu.engine.ticket import Result
from talu.sampling import SamplingParams
from talu.types import LocalBackend

TEXT = """\
The lighthouse at Marrow Point was built in 1871 by the engineer Thomas Weld, who had already \
built two others on the same coast. Its lamp burned oil until 1924, when a generator was \
installed in the cellar of the keeper's house. The keeper, Anna Brandt, lived there with three \
children for nineteen years. In the winter of 1936 a storm broke the window of the lantern room, \
and she kept the light burning for two nights with blankets and a spare lamp. The harbour board \
gave her a silver watch, which is now in the museum of the town. The lighthouse was automated in \
1968 and the house was sold. Today it is a small hotel with six rooms, and guests may climb the \
tower on clear evenings."""

CODE = '''\
def read_orders(path: Path) -> list[dict[str, str]]:
    """Read all orders of a file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def total_price(orders: list[dict[str, str]], country: str) -> float:
    """Add up the prices of the orders from one country."""
    total = 0.0
    for order in orders:
        if order["country"] != country:
            continue
        quantity = int(order["quantity"])
        price = float(order["price"])
        total += quantity * price
    return round(total, 2)


def main() -> None:
    """Print the total of each country."""
    orders = read_orders(Path("orders.csv"))
    countries = sorted({order["country"] for order in orders})
    for country in countries:
        print(country, total_price(orders, country))
'''

BEGUN = CODE[: CODE.index("    for order in")].replace("total = 0.0", "amount = 0.0")
TASKS = {  # prompts without a template, so that base models can answer them; and the temperature
    "quotation": (f"{TEXT}\n\nThe same text, word for word:\n\nThe lighthouse", 0.0),
    "summary": (f"{TEXT}\n\nA summary of this text:\n\n", 0.0),
    "edit": (f"```python\n{CODE}```\n\nWith `amount` for `total`:\n\n```python\n{BEGUN}", 0.0),
    "free text": ("This is the story of a fox who learned to read.\n\n", 0.8),
}


@dataclass
class Measured:
    """One task with one model; a rate for each round, in tokens per second."""

    file: str
    task: str
    plain: list[float] = field(default_factory=list)
    speculative: list[float] = field(default_factory=list)
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0
    tokens: int = 0

    @property
    def ratio(self) -> float:
        """The median of the ratios of the rounds."""
        pairs = zip(self.speculative, self.plain, strict=True)
        return statistics.median(fast / slow for fast, slow in pairs)


def generate(engine: Engine, task: str, tokens: int, seed: int) -> tuple[list[int], Result]:
    """The tokens of an answer that no end token stops."""
    text, temperature = TASKS[task]
    params = SamplingParams(max_tokens=tokens, temperature=temperature, seed=seed)
    ticket = engine.submit(engine.tokenizer.encode(text), params)
    answer = [token for piece in ticket for token in piece.tokens]
    if ticket.result is None:
        sys.exit("the engine gave no result")
    return answer, ticket.result


def measure(file: Path, task: str, engines: list[Engine], tokens: int, rounds: int) -> Measured:
    """Run a task with both engines, in turn; the one that begins changes."""
    measured = Measured(file.name, task)
    for number in range(rounds + 1):
        answers = {}
        for engine in engines if number % 2 else reversed(engines):
            answers[engine] = generate(engine, task, tokens, number)
        (plain, slow), (speculative, fast) = (answers[engine] for engine in engines)
        if plain != speculative:
            sys.exit(f"{file.name}, {task}: the answer with drafts has other tokens")
        if number > 0:  # the first round warms up
            measured.plain.append(slow.timings.tokens_per_second or 0.0)
            measured.speculative.append(fast.timings.tokens_per_second or 0.0)
            measured.draft_tokens += fast.usage.draft_tokens or 0
            measured.accepted_draft_tokens += fast.usage.accepted_draft_tokens or 0
            measured.tokens += len(plain)
    return measured


def line(measured: Measured) -> str:
    """The figures of a task."""
    drafts = f"{measured.accepted_draft_tokens} of {measured.draft_tokens} drafted tokens accepted"
    return (
        f"  {measured.task:<10} plain {spread(measured.plain):<20} "
        f"speculative {spread(measured.speculative):<20} ratio "
        f"{measured.ratio:.2f}; {drafts}, {measured.tokens} tokens in all"
    )


def main() -> None:
    """Command line."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--tokens", type=int, default=200)
    given = parser.parse_args()
    given.files = given.files or default_files()
    title = "tokens per second: median (minimum to maximum); ratio: median of those of the rounds"
    report = Report(given, title)
    plain = LocalBackend(num_threads=given.threads)
    results = []
    for file in given.files:
        leases = [acquire(str(file), each) for each in (plain, replace(plain, speculative="ngram"))]
        report.line(f"\n{file.name}")
        for task in TASKS:
            engines = [lease.engine for lease in leases]
            measured = measure(file, task, engines, given.tokens, given.rounds)
            results.append(asdict(measured) | {"ratio": measured.ratio})
            report.line(line(measured))
        for lease in leases:
            lease.release()
    report.end(results)


if __name__ == "__main__":
    main()
