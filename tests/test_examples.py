"""Every example runs, is short, and demonstrates its feature."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))

# What each example prints, as regular expressions that have to be found in this order. They hold
# for any trained talu/pocket: what it calculates and knows, and what the library counts.
SHOWN = {
    "agent.py": [
        r"^I look\. $",
        r'^find {"kind": "note"} -> \["old", "plan"\]$',
        r"^delete .* -> (deleted the note|Error: the tool 'delete' failed with KeyError: 'x')$",
        r"^The old note is gone",
        r"^left: plan, photo, 3 calls$",
    ],
    "ask.py": [
        r"^7 \* 8 = 56\.$",
        r"talu/pocket, ended by stop",
        r"\d+ tokens in, \d+ out",
        r"ended by length",
        r"^[^.]+\n  ended by stop at '\.'$",
        r"same seed, same tokens: True",
        r"^'.+' +[01]\.\d{3}  '",
    ],
    "async_server.py": [
        *(rf"^{n} \+ {n} = {2 * n}\.$" for n in range(1, 9)),
        r"^GENERATION_CONTEXT_OVERFLOW\n.+\n.+\n$",
    ],
    "branching.py": [
        r"its chat: True",
        r"in a fork: True",
        r"user +And of Italy\?\n  assistant .*Rome",
        r"user +And of Spain\?\n  assistant .*Madrid",
        r"4\.  \(the fork has 6 items, the chat 4\)",
        r"^[1-9]\d* of \d+ tokens from the cache",
        r"(^\d+ characters: .+\n){3}",
        r"Berlin.*\(the chat has 4 items\)",
    ],
    "cancellation.py": [
        r"left after 10 pieces: cancelled, Usage\(prompt_tokens=\d\d",
        r"keeps it as incomplete: '.+'",
        r"asked to stop: cancelled",
        r"timed out: cancelled",
        r"the model is free: .*4",
    ],
    "chat.py": [
        r"> What is the capital of France\?\n.*Paris",
        r"> And of Italy\?\n.+$",
        r"^system +completed +You are a pirate\.$",
        r"^[1-9]\d* of \d+ prompt tokens were in the cache$",
        r"\(as a poet\)\n.+$",
        r"edited history\)\n.+$",
        r"the same history elsewhere: True",
    ],
    "embeddings.py": [
        r"^talu/pocket: vectors of \d+ numbers\nWhat is the capital of Italy\?$",
        r"^  0\.\d{3}  What is the capital",
        r"(^  -?[01]\.\d{3}  .+\n){5}$",
    ],
    "hooks.py": [
        r"^log: event=start generation=1 model=talu/pocket operation=chat stream=false$",
        r"^log: event=end generation=1 model=talu/pocket finish_reason=stop .* prompt_tokens=\d+ ",
        r"^ended: stop '2 \+ 2 = 4\.'$",
        r"operation=text_completion",
        r"^ended: length '",
        r"^ended: cancelled '",
        r"error=GENERATION_CONTEXT_OVERFLOW",
        r"^ended: GENERATION_CONTEXT_OVERFLOW\nfailed: GENERATION_CONTEXT_OVERFLOW\n",
        r"^4 started, 1 failed, 1 cancelled\n[1-9]\d* tokens in, [1-9]\d* out$",
        r"^first token after \d+\.\d ms on average$",
        r'^talu_generations_started_total\{model="talu/pocket"\} 4$',
        r'ended_total\{model="talu/pocket",finish_reason="stop"\} 1$',
    ],
    "mcp_tools.py": [
        r'^shop_stock {} -> {"pears": 3, "figs": 0}$',
        r"^to approve: \[ToolCall\(id='2', name='shop_sell'",
        r"^shop_sell {.*} -> 2 pears sold, 1 left$",
        r"^Two pears for you\.$",
    ],
    "profiles.py": [
        r"What is 2\+2\? -> .*4",
        r"^5 items in A pirate$",
        r"^True A pirate .*\[Hello\]",
        r"^1 session is left$",
    ],
    "quickstart.py": [
        r"What is 2\+2\? -> .*4",
        r"about a fox\. -> .*fox",
        r"Hello! -> pirate: .+\nHello! -> poet: .+",
        r"France\? -> .*Paris.*\nAnd of Italy\? -> .*Rome",
        r"[1-9]\d* from the cache\), \d+ tokens out",
    ],
    "raw_completion.py": [
        r"user\nWhat is 2\+2\?",
        r"^2 \+ 2 = 4\.  \(same as ask: True\)$",
        r"^2 \+ 2 = 4\.  \(\d tokens of it sampled\)$",
        r"^\d+ ids in, \d tokens out$",
        r"^3 \+ 3 =.*  \((stop|length)\)$",
    ],
    "save_restore.py": [
        r"^stored: .* config .* items messages$",
        r"items the same: True\nsettings the same: True",
        r"And of Italy\? -> .+$",
        r'^  \{"role": "system", "content": "You are a pirate\."\}$',
        r"messages the same: True",
        r"^  user: 'What is the capital of France\?',$",
    ],
    "structured_output.py": [
        r'^the text: {"a": \d+, "b": \d+, "result": \d+}$',
        r"^the value: Sum\(a=\d+, b=\d+, result=\d+\)$",
        r"(^topic: Topic\.(CAPITALS|NUMBERS)\n){2}",
        r"^a sum: \d+ \+ \d+ = \d+$",
        r"^so far: {}\n(.*\n)*so far: {'a': \d+}$",
        r'^cut: {"a": \d+, ',
    ],
    "stream.py": [
        r"^2 \+ 2 = 4\.$",
        r"^ +\d+ +-\d+\.\d{3}  \w",
        r"last piece: Token\('', finish_reason='stop'\)",
        r"^\d+ tokens, stop, whole text:\n.+$",
        r"left after the first sentence: [^.]+\.",
        r"^cancelled - the chat keeps it as incomplete$",
        r"pieces came by: .+ True$",
    ],
    "token_budget.py": [
        r"have 1024 tokens together",
        r"the next prompt would have [1-9]\d* tokens",
        r"GENERATION_CONTEXT_OVERFLOW: the prompt has \d+ tokens, but the context holds 1024",
        r"left no trace: 1 item$",
        r"^turn  1: +\d+ of 1024 tokens, 0 dropped before$",
        r"^turn 16: +\d+ of 1024 tokens, [1-9]\d* dropped before$",
    ],
}


@cache
def printed_by(path: Path) -> str:
    """The output of an example, which prints nothing on stderr."""
    shown = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    return shown.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_shows_its_feature(path: Path) -> None:
    rest = printed_by(path)
    for pattern in SHOWN[path.name]:
        found = re.search(pattern, rest, re.MULTILINE)
        assert found, f"{pattern!r} is not in\n{rest}"
        rest = rest[found.end() :]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_fits_on_a_page(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 40


def test_the_example_of_a_token_budget_keeps_it() -> None:
    printed = printed_by(FOLDER / "token_budget.py")
    totals = [int(total) for total in re.findall(r"^turn .*: +(\d+) of", printed, re.MULTILINE)]
    assert len(totals) == 16
    assert max(totals) <= 1024
