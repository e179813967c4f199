import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from talu.engine.blocks import BlockPool

SIZE = 4
COUNT = 12
PROMPTS = st.lists(st.integers(0, 1), min_size=1, max_size=20)


def computed_sequence(pool: BlockPool, tokens: list[int]) -> list[int]:
    """The blocks of a sequence that has run to its end, its full blocks published."""
    blocks: list[int] = []
    computed = pool.reuse(blocks, tokens, 0)
    assert pool.grow(blocks, pool.needed(len(tokens)))
    pool.publish(blocks, tokens, computed // pool.block_size, len(tokens) // pool.block_size)
    return blocks


@pytest.mark.parametrize(("positions", "blocks"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_each_group_of_positions_needs_a_block_even_if_it_is_not_full(
    positions: int, blocks: int
) -> None:
    assert BlockPool(COUNT, SIZE).needed(positions) == blocks


def test_a_shared_prefix_is_reused_block_by_block() -> None:
    pool = BlockPool(COUNT, SIZE)
    first = computed_sequence(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    second: list[int] = []
    assert pool.reuse(second, [1, 2, 3, 4, 5, 6, 7, 0, 9], 0) == 4
    assert second == first[:1]


def test_the_last_token_of_a_prompt_is_never_covered() -> None:
    pool = BlockPool(COUNT, SIZE)
    tokens = [1, 2, 3, 4, 5, 6, 7, 8]
    computed_sequence(pool, tokens)
    assert pool.reuse([], tokens, 0) == 4


def test_the_same_tokens_after_another_prefix_are_another_block() -> None:
    pool = BlockPool(COUNT, SIZE)
    computed_sequence(pool, [1, 1, 1, 1, 5, 6, 7, 8])
    computed_sequence(pool, [2, 2, 2, 2, 9])
    blocks: list[int] = []
    assert pool.reuse(blocks, [2, 2, 2, 2, 5, 6, 7, 8, 9], 0) == 4


def test_a_namespace_never_gets_the_blocks_of_another_one() -> None:
    pool = BlockPool(COUNT, SIZE)
    tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    mine: list[int] = []
    pool.grow(mine, 3)
    pool.publish(mine, tokens, 0, 2, "a")
    for other in ("", "b"):
        assert pool.cached(tokens, other) == 0
        assert pool.reuse([], tokens, 0, other) == 0
    theirs: list[int] = []
    pool.grow(theirs, 3)
    pool.publish(theirs, tokens, 0, 2, "b")
    assert not set(mine) & set(theirs)
    assert pool.cached(tokens, "a") == pool.cached(tokens, "b") == 8


def test_a_prefix_outlives_its_sequence() -> None:
    pool = BlockPool(COUNT, SIZE)
    blocks = computed_sequence(pool, [1, 2, 3, 4, 5])
    kept = blocks[0]
    pool.release(blocks)
    again: list[int] = []
    assert pool.reuse(again, [1, 2, 3, 4, 6], 0) == 4
    assert again == [kept]


def test_the_prefix_used_longest_ago_is_given_up_first() -> None:
    pool = BlockPool(3, SIZE)
    for token in (1, 2):
        pool.release(computed_sequence(pool, [token] * SIZE + [0]))
    touched: list[int] = []
    pool.reuse(touched, [1] * SIZE + [0], 0)
    pool.release(touched)
    assert pool.grow([], 2)
    assert pool.reuse([], [2] * SIZE + [0], 0) == 0
    assert pool.reuse([], [1] * SIZE + [0], 0) == SIZE


def test_the_end_of_a_prefix_is_given_up_before_its_start() -> None:
    pool = BlockPool(3, SIZE)
    tokens = [1] * 4 + [2] * 4 + [3] * 4
    pool.release(computed_sequence(pool, tokens))
    assert pool.grow([], 1)
    assert pool.reuse([], [*tokens, 0], 0) == 8


def test_growing_takes_all_or_nothing() -> None:
    pool = BlockPool(3, SIZE)
    assert pool.grow([], 2)
    blocks: list[int] = []
    assert not pool.grow(blocks, 2)
    assert blocks == []
    assert pool.available == 1


def test_sequences_that_computed_equal_blocks_keep_one_copy() -> None:
    pool = BlockPool(COUNT, SIZE)
    tokens = [1, 2, 3, 4, 5]
    first: list[int] = []
    second: list[int] = []
    pool.grow(first, 2)
    pool.grow(second, 2)
    pool.publish(first, tokens, 0, 1)
    pool.publish(second, tokens, 0, 1)
    assert second[0] == first[0]
    assert pool.available == COUNT - 3


@settings(max_examples=200)
@given(st.lists(PROMPTS, max_size=8))
def test_after_everything_is_released_every_block_is_available(prompts: list[list[int]]) -> None:
    pool = BlockPool(COUNT, SIZE)
    for tokens in prompts:
        blocks = computed_sequence(pool, tokens)
        pool.release(blocks)
        assert blocks == []
    assert pool.available == COUNT


class AnyOrder(RuleBasedStateMachine):
    """Sequences start, advance, join published prefixes and leave, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(COUNT, SIZE)
        self.sequences: list[tuple[list[int], list[int]]] = []
        self.computed: dict[int, int] = {}
        self.content: dict[int, tuple[int, ...]] = {}  # what the executor would hold

    @rule(tokens=PROMPTS)
    def start(self, tokens: list[int]) -> None:
        blocks: list[int] = []
        computed = self.pool.reuse(blocks, tokens, 0)
        if self.pool.grow(blocks, self.pool.needed(len(tokens))):
            self.sequences.append((tokens, blocks))
            self.computed[id(blocks)] = computed
        else:
            self.pool.release(blocks)

    @precondition(lambda self: self.sequences)
    @rule(data=st.data(), count=st.integers(1, 9))
    def advance(self, data: st.DataObject, count: int) -> None:
        tokens, blocks = data.draw(st.sampled_from(self.sequences))
        start = self.pool.reuse(blocks, tokens, self.computed[id(blocks)])
        stop = min(start + count, len(tokens))
        for index in range(start // SIZE, stop // SIZE):
            self.content[blocks[index]] = tuple(tokens[: (index + 1) * SIZE])
        self.pool.publish(blocks, tokens, start // SIZE, stop // SIZE)
        self.computed[id(blocks)] = stop

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.sequences) - 1))
        _, blocks = self.sequences.pop(number)
        self.pool.release(blocks)

    @invariant()
    def no_block_is_lost_or_given_twice(self) -> None:
        in_use = {block for _, blocks in self.sequences for block in blocks}
        assert self.pool.available == COUNT - len(in_use)

    @invariant()
    def a_block_in_two_lists_stands_at_the_same_place(self) -> None:
        places = {(block, i) for _, blocks in self.sequences for i, block in enumerate(blocks)}
        assert max(Counter(block for block, _ in places).values(), default=1) == 1

    @invariant()
    def every_sequence_finds_what_it_computed(self) -> None:
        for tokens, blocks in self.sequences:
            for index in range(self.computed[id(blocks)] // SIZE):
                assert self.content[blocks[index]] == tuple(tokens[: (index + 1) * SIZE])


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_blocks_cost_memory_only_when_they_are_used() -> None:
    tracemalloc.start()
    try:
        pool, blocks = BlockPool(2**27, SIZE), list[int]()
        assert pool.grow(blocks, 10)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert pool.available == 2**27 - 10


@given(st.lists(PROMPTS, max_size=5), PROMPTS)
def test_the_cached_tokens_are_those_that_a_sequence_would_reuse(
    earlier: list[list[int]], prompt: list[int]
) -> None:
    pool = BlockPool(COUNT * 10, SIZE)
    for tokens in earlier:
        computed_sequence(pool, tokens)
    assert pool.cached(prompt) == pool.reuse([], prompt, 0)
