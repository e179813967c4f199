"""Training batches: rows of tokens, put together by length so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import torch
from corpus.conversation import Conversation, pieces
from corpus.mixture import training
from tokenizers import Tokenizer
from torch import Tensor

CONVERSATIONS = 4096
Row = tuple[list[int], list[bool]]


def rows(tokenizer: Tokenizer, conversations: list[Conversation]) -> list[Row]:
    """Return ids and whether each is learned, one row to a conversation."""
    split = [pieces(one) for one in conversations]
    encoded = iter(
        tokenizer.encode_batch(
            [text for parts in split for text, _ in parts], add_special_tokens=False
        )
    )
    out = []
    for parts in split:
        ids: list[int] = []
        learned: list[bool] = []
        for _, wanted in parts:
            piece = next(encoded).ids
            ids += piece
            learned += [wanted] * len(piece)
        out.append((ids[:-1], learned[:-1]))
    return out


def grouped(found: list[Row], tokens: int, rng: Random) -> list[list[Row]]:
    """Return batches of about `tokens` tokens and rows of nearly one length, in random order."""
    found = sorted(found, key=lambda row: len(row[0]) + rng.random() * 4)
    out: list[list[Row]] = [[]]
    for row in found:
        if (len(out[-1]) + 1) * len(row[0]) > tokens:
            out.append([])
        out[-1].append(row)
    rng.shuffle(out)
    return out


def tensors(batch: list[Row]) -> tuple[Tensor, Tensor]:
    """Return a batch as padded ids and the mask of learned tokens."""
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    wanted = torch.zeros(len(batch), longest, dtype=torch.bool)
    for at, (row, learned) in enumerate(batch):
        ids[at, : len(row)] = torch.tensor(row)
        wanted[at, : len(row)] = torch.tensor(learned)
    return ids, wanted


def shard(
    tokenizer: Tokenizer, seed: int, tokens: int, weights: dict[str, float] | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one part of the corpus."""
    found = rows(tokenizer, list(training(seed, CONVERSATIONS, weights)))
    yield from map(tensors, grouped(found, tokens, Random(seed)))
