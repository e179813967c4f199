"""Train `talu/pocket` and write its checkpoint folder.

    python train.py --run RUN_FOLDER --out CHECKPOINT_FOLDER --tokens 9000000

The run folder keeps the tokenizer and the state, so that the same command goes on where it stopped.
The rate follows the tokens seen, not the clock: on one kind of machine, with one number of threads
(`OMP_NUM_THREADS`), every run ends with the same weights, also one that was interrupted.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import export
import torch
from batches import shard
from network import Pocket
from optimiser import Optimiser
from tokenizers import Tokenizer

WARM = 0.01
FLAT_UNTIL = 0.3
FIRST_SHARD = 1000


@dataclass(slots=True)
class Run:
    """Where a training stands."""

    model: Pocket
    optimiser: Optimiser
    shard: int = FIRST_SHARD
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the state so that a broken write never replaces a good one."""
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state(),
            "shard": self.shard,
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Take up a written state."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load(state["optimiser"])
        self.shard, self.step = state["shard"], state["step"]
        self.tokens, self.seconds = state["tokens"], state["seconds"]


def share(done: float) -> float:
    """Return the part of the full rate at a point of the training: up, flat, down to nothing."""
    if done < WARM:
        return max(done, 0.001) / WARM
    return 1.0 if done < FLAT_UNTIL else max(0.0, (1 - done) / (1 - FLAT_UNTIL))


def weights_in(folder: Path) -> dict[str, float] | None:
    """Return other weights of the subjects, when the run folder has them."""
    path = folder / "weights.json"
    return json.loads(path.read_text()) if path.exists() else None


def train_shard(run: Run, tokenizer: Tokenizer, folder: Path, options: argparse.Namespace) -> None:
    """Train on one part of the corpus, or until the wanted number of tokens is reached."""
    begun = time.monotonic()
    for ids, wanted in shard(tokenizer, run.shard, options.batch, weights_in(folder)):
        loss = run.model.loss(ids, wanted)
        loss.backward()
        run.optimiser.step(share(run.tokens / options.tokens))
        now = time.monotonic()
        run.seconds += now - begun
        begun = now
        run.step += 1
        run.tokens += ids.numel()
        run.losses.append(loss.item())
        if run.step % 25 == 0:
            recent = sum(run.losses[-25:]) / 25
            speed = run.tokens / run.seconds
            print(
                f"step {run.step} loss {recent:.4f} tokens {run.tokens}"
                f" {speed:.0f}/s {run.seconds:.0f}s",
                flush=True,
            )
        if run.tokens >= options.tokens:
            return
    run.shard += 1


def main() -> None:
    """Train on the given number of tokens, writing the state after each part of the corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=9_000_000)
    parser.add_argument("--batch", type=int, default=2048)
    options = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(options.run / "tokenizer.json"))
    run = Run(model := Pocket(), Optimiser(model))
    state = options.run / "state.pt"
    if state.exists():
        run.load(state)
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    while run.tokens < options.tokens:
        train_shard(run, tokenizer, options.run, options)
        run.save(state)
    export.write(model, options.run, options.out)


if __name__ == "__main__":
    main()
