"""Runs a test with talu and its peer in turn, and reports what makes the figures checkable."""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from machine import commit, machine
from make_checkpoint import default_folder, gguf_path, make
from peers import LlamaCpp, Peer, Talu, random_prompt

LIKELY = 20
TOLERANCE = 0.05  # of a log-probability: bf16 rounds differently in different orders of sums


def main(test: str, tokens: int, measure: Callable[[Peer, int, int], float]) -> None:
    """Command line of a benchmark: ``measure(peer, tokens, seed)`` gives tokens per second."""
    parser = argparse.ArgumentParser(description=f"{test}, talu and llama.cpp in turn")
    parser.add_argument("folder", nargs="?", type=Path, default=default_folder())
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=tokens)
    arguments = parser.parse_args()
    make(arguments.folder)
    print(f"{test} of {arguments.tokens} tokens, bf16, {arguments.threads} threads")
    print(f"machine: {machine()}\ncommit: {commit()}")

    context = max(1024, 2 * arguments.tokens)
    talu = Talu(arguments.folder, arguments.threads)
    other = LlamaCpp(gguf_path(arguments.folder), arguments.threads, context)
    print(f"same network: {same_network(talu, other)}")
    rates: dict[str, list[float]] = {talu.name: [], other.name: []}
    for number in range(arguments.rounds + 1):
        for peer in (talu, other):
            rate = measure(peer, arguments.tokens, number)
            if number > 0:  # the first round warms up
                rates[peer.name].append(rate)
    for name, values in rates.items():
        listed = " ".join(f"{value:.2f}" for value in values)
        low, middle = min(values), statistics.median(values)
        print(f"{name}: median {middle:.2f} tokens/s, minimum {low:.2f} ({listed})")
    ours, theirs = (statistics.median(values) for values in rates.values())
    print(f"ratio of medians: {ours / theirs:.2f}")
    talu.close()
    other.close()


def same_network(talu: Peer, other: Peer) -> str:
    """Compare the likeliest next tokens after a prompt; ends the program when they differ."""
    prompt = random_prompt(48, 99)
    ours, theirs = talu.likely(prompt, LIKELY), other.likely(prompt, LIKELY)
    common = ours.keys() & theirs.keys()
    furthest = max((abs(ours[token] - theirs[token]) for token in common), default=1.0)
    found = (
        f"{len(common)} of the {LIKELY} likeliest tokens in common, "
        f"log-probabilities at most {furthest:.4f} apart"
    )
    if len(common) < LIKELY * 3 // 4 or furthest > TOLERANCE:
        sys.exit(f"the two do not compute the same network: {found}")
    return found
