"""Tracks the blocks of the paged KV cache: their content, users and order of eviction.

The executor holds the keys and values. A full block is published under its parent block and its
tokens, so that a lookup compares the tokens instead of a hash, which two prefixes could share. The
parent of a sequence's first block is the name of its namespace: no other namespace finds it.
"""

from collections import OrderedDict
from collections.abc import Sequence

__all__ = ["BlockPool"]

Key = tuple[int | str, tuple[int, ...]]  # parent block, or the namespace of a first block; tokens


class BlockPool:
    """A fixed number of cache blocks that sequences with a common prefix share.

    A sequence owns a list of block numbers, in the order of its positions; the methods change
    that list in place. Unused blocks that still hold a published prefix are kept, and evicted in
    the order of their last use. A user of a block also uses its parents, and a released list frees
    its last block first, so a block is evicted before its parent, and every published prefix stays
    reachable.

    A block takes memory only after its first use, because a small model may have millions of them.
    """

    def __init__(self, count: int, block_size: int) -> None:
        self.block_size = block_size
        self.count = count
        self._untouched = 0  # the first block that was never used
        self._free: list[int] = []
        self._users: dict[int, int] = {}
        self._published: dict[Key, int] = {}
        self._keys: dict[int, Key] = {}
        self._unused: OrderedDict[int, None] = OrderedDict()  # published, least recently used first

    @property
    def available(self) -> int:
        """Number of blocks that can be allocated, including those that hold an unused prefix."""
        return self.count - self._untouched + len(self._free) + len(self._unused)

    def needed(self, positions: int) -> int:
        """Number of blocks that ``positions`` positions need."""
        return -(-positions // self.block_size)

    def grow(self, blocks: list[int], length: int) -> bool:
        """Append blocks up to ``length``; False, and no change, if too few are available."""
        missing = length - len(blocks)
        if missing > self.available:
            return False
        blocks.extend(self._take_blank() for _ in range(missing))
        return True

    def reuse(
        self, blocks: list[int], tokens: Sequence[int], computed: int, namespace: str = ""
    ) -> int:
        """Use published blocks for the tokens after the first ``computed``.

        The last token is never reused, because its row must run to give the next token. Blocks that
        the sequence held for the reused positions are replaced by the published ones.

        Returns:
            the number of tokens that are now in the cache, at least ``computed``.
        """
        size = self.block_size
        while computed % size == 0 and computed + size < len(tokens):
            index = computed // size
            found = self._published.get(self._key(blocks, tokens, index, namespace))
            if found is None:
                break
            self._enter(blocks, index, found)
            computed += size
        return computed

    def cached(self, tokens: Sequence[int], namespace: str = "") -> int:
        """The number of tokens that a new sequence of these tokens would reuse.

        Changes nothing; other threads may call it. What it finds may be evicted at any time.
        """
        computed = 0
        parent: int | str = namespace
        while computed + self.block_size < len(tokens):
            part = tuple(tokens[computed : computed + self.block_size])
            found = self._published.get((parent, part))
            if found is None:
                break
            computed, parent = computed + self.block_size, found
        return computed

    def publish(
        self,
        blocks: list[int],
        tokens: Sequence[int],
        first: int,
        last: int,
        namespace: str = "",
    ) -> None:
        """Share the full blocks ``first`` to ``last - 1`` of a sequence within its namespace.

        The blocks before ``first`` must have been published. If another sequence has already
        published the same tokens, its block replaces this one, so that only one copy remains.
        """
        for index in range(first, last):
            key = self._key(blocks, tokens, index, namespace)
            found = self._published.get(key)
            if found is None:
                self._published[key] = blocks[index]
                self._keys[blocks[index]] = key
            else:
                self._enter(blocks, index, found)

    def release(self, blocks: list[int]) -> None:
        """Free all blocks of a sequence and empty its list."""
        while blocks:
            self._leave(blocks.pop())

    def _key(self, blocks: list[int], tokens: Sequence[int], index: int, namespace: str) -> Key:
        start = index * self.block_size
        parent = blocks[index - 1] if index else namespace
        return parent, tuple(tokens[start : start + self.block_size])

    def _take_blank(self) -> int:
        if self._free:
            block = self._free.pop()
        elif self._untouched < self.count:
            block = self._untouched
            self._untouched += 1
        else:
            block, _ = self._unused.popitem(last=False)
            del self._published[self._keys.pop(block)]
        self._users[block] = 1
        return block

    def _enter(self, blocks: list[int], index: int, found: int) -> None:
        """Replace the block at ``index`` by the published block ``found``."""
        self._unused.pop(found, None)
        self._users[found] = self._users.get(found, 0) + 1
        if index == len(blocks):
            blocks.append(found)
        else:
            mine, blocks[index] = blocks[index], found
            self._leave(mine)

    def _leave(self, block: int) -> None:
        self._users[block] -= 1
        if self._users[block] == 0:
            del self._users[block]
            if block in self._keys:
                self._unused[block] = None
            else:
                self._free.append(block)
