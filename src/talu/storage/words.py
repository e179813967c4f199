"""Text processing for the search: normalization for the index, query parsing and snippets.

Scripts written without spaces (such as Chinese, Japanese, Korean and Thai) are indexed character by
character, so that any part of a sentence can be found.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice

__all__ = ["TOKENIZER", "Query", "index_form", "parse_query", "snippet", "token_text"]

# Words consist of letters, marks, numbers, private-use characters, and characters that are newer
# than the tokenizer's tables, which are those of Unicode 6.1.
TOKENIZER = "unicode61 remove_diacritics 0 categories 'L* M* N* Co Cn'"
ALONE = (  # blocks in which each character is indexed as a word: scripts without spaces, and emoji
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3005-\u3007\u3021-\u3029"
    "\u3031-\u3035\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U0001aff0-\U0001b16f\U0001f000-\U0001faff"
    "\U00020000-\U0003ffff"
)
# Accents of Latin, Greek, Cyrillic, Hebrew and Arabic, and invisible characters.
IGNORED = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u06d6-\u06ed\u00ad\u200b\u2060\ufe00-\ufe0f\ufeff]"
)
STANDS_ALONE = re.compile(f"[{ALONE}]")
NO_CHARACTER = re.compile("[\ud800-\udfff\0]")
BEFORE = "\b"  # cancels the preceding space, so that a mark stays with its letter
BLOCK = 2000  # characters of text searched for a snippet at a time
WIDTH = 80  # characters of a snippet
MAX_SPANS = 50  # matches considered for a snippet


@dataclass(frozen=True, slots=True)
class Query:
    """The conditions that a text must meet to be found.

    Attributes:
        words: prefixes that words of the text must have, in index form.
        literals: strings that the text must contain, in index form.
    """

    words: tuple[str, ...]
    literals: tuple[str, ...]

    @property
    def match(self) -> str:
        """The words as an FTS5 query, quoted so that they have no special meaning."""
        return " ".join('"{}"*'.format(word.replace('"', " ")) for word in self.words)

    @property
    def patterns(self) -> list[str]:
        """The words as patterns of SQL's LIKE for ``token_text``, which has none of its signs."""
        return [f"%{token_text(word)}%" for word in self.words]


def index_form(text: str) -> str:
    """The text with case, accents and widths removed, and spaces around characters of ``ALONE``.

    Characters that a database cannot store as text are replaced.
    """
    if text.isascii():
        return text.lower().replace("\0", "\ufffd")
    spaced = _folded(NO_CHARACTER.sub("\ufffd", text)).translate(SPACED)
    return spaced.replace(f" {BEFORE}", "").replace(BEFORE, "")


def token_text(form: str) -> str:
    """The words of a text in index form, each after a space, as FTS5 divides it.

    Symbols that are newer than the tables of FTS5 divide words here, and are part of them there.
    """
    return "".join(f" {token}" for token in form.translate(DIVIDED).split())


def parse_query(search: str) -> Query:
    """The distinct words of a search.

    Punctuation is ignored in words, but matched literally in a word that has nothing else, and next
    to a single letter or digit, as in ``C++``.
    """
    words, literals = [], []
    for word in dict.fromkeys(index_form(word).strip() for word in search.split()):
        letters = sum(map(str.isalnum, word))
        if letters:
            words.append(word)
        if letters == 0 or (letters == 1 and len(word) > 1 and word.isascii()):
            literals.append(word)
    return Query(tuple(words), tuple(filter(None, literals)))


def snippet(text: str, query: Query) -> str:
    """The part of a text that matches most of the query, with the matches in brackets."""
    text = unicodedata.normalize("NFC", text)
    patterns = _patterns(query)
    start = _best_block(text, patterns)
    block = text[start : start + BLOCK]
    spans = _spans(block, patterns)
    first, last = _window(block, spans)
    shown, at = [], first
    for begin, end in spans:
        if first <= begin and (end <= last or end - begin > WIDTH):
            shown += [block[at:begin], "[", block[begin : min(end, last)], "]"]
            at = min(end, last)
    shown.append(block[at:last])
    before = "…" if start + first else ""
    return before + "".join(shown).strip() + ("…" if start + last < len(text) else "")


class _Spaced(dict[int, str]):
    """A table for ``str.translate`` that puts spaces around the characters of ``ALONE``."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if STANDS_ALONE.match(char):
            char = f"{BEFORE}{char} " if unicodedata.category(char)[0] == "M" else f" {char} "
        self[code] = " " if char == BEFORE else char
        return self[code]


class _Divided(dict[int, str]):
    """A table for ``str.translate`` that puts spaces in place of characters between words."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        self[code] = " " if category[0] in "PSZ" or category in ("Cc", "Cf", "Cs") else char
        return self[code]


SPACED = _Spaced()
DIVIDED = _Divided()


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFC", IGNORED.sub("", plain))


@cache
def _marks() -> str:
    """All combining marks of the basic multilingual plane, as ranges of a regular expression."""
    marks = {n for n in range(0x300, 0x10000) if unicodedata.category(chr(n))[0] == "M"}
    begins = sorted(n for n in marks if n - 1 not in marks)
    ends = sorted(n for n in marks if n + 1 not in marks)
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(begins, ends, strict=True))


@lru_cache(16)
def _patterns(query: Query) -> list[re.Pattern[str]]:
    """Regular expressions over the index form that match each part of a query as the index does."""
    marks = _marks()
    part = f"(?:[^\\W_]|[{marks}])"
    gap = f"(?:(?![{marks}])[\\W_])+"
    found = [re.compile(re.escape(literal)) for literal in query.literals]
    for word in query.words:
        parts = map(re.escape, re.findall(f"{part}+", word))
        found.append(re.compile(f"(?<![^\\W_])(?<![{marks}]){gap.join(parts)}{part}*"))
    return found


def _best_block(text: str, patterns: Sequence[re.Pattern[str]]) -> int:
    """The start of the block in which most patterns occur."""
    best, most = 0, 0
    for start in range(0, max(1, len(text)), BLOCK - WIDTH):
        form = index_form(text[start : start + BLOCK])
        count = sum(pattern.search(form) is not None for pattern in patterns)
        if count > most:
            best, most = start, count
        if most == len(patterns):
            break
    return best


def _spans(block: str, patterns: Iterable[re.Pattern[str]]) -> list[tuple[int, int]]:
    """The spans of the patterns in a block, in order and without overlaps."""
    form, begins, ends = _mapped(block)
    found = set()
    for pattern in patterns:
        for match in islice(pattern.finditer(form), MAX_SPANS):
            last = match.start() + len(match.group().rstrip()) - 1
            found.add((begins[match.start()], ends[last]))
    spans: list[tuple[int, int]] = []
    for begin, end in sorted(found)[:MAX_SPANS]:
        if spans and begin < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((begin, end))
    return spans


def _mapped(block: str) -> tuple[str, Sequence[int], Sequence[int]]:
    """The index form of a block, and the start and end in the block of each of its characters."""
    if block.isascii():
        return index_form(block), range(len(block)), range(1, len(block) + 1)
    forms: list[str] = []
    begins: list[int] = []
    ends: list[int] = []
    for cluster in re.finditer(f"(?s).[{_marks()}]*", block):
        form = _form_of_cluster(cluster.group())
        forms.append(form)
        begins += [cluster.start()] * len(form)
        ends += [cluster.end()] * len(form)
    return "".join(forms), begins, ends


_form_of_cluster = lru_cache(4096)(index_form)


def _window(block: str, spans: list[tuple[int, int]]) -> tuple[int, int]:
    """The part of a block to show: where most spans are, cut at spaces if possible."""

    def inside(begin: int) -> int:
        return sum(begin <= other and end <= begin + WIDTH for other, end in spans)

    lead = max((begin for begin, _ in spans), key=inside, default=0)
    ends = [end for begin, end in spans if begin >= lead and end <= lead + WIDTH]
    spare = max(0, WIDTH - (max(ends, default=lead) - lead))
    first, last = max(0, lead - spare // 2), max(ends, default=lead)
    last = min(len(block), max(last, first + WIDTH))
    if first and (space := block.find(" ", first, lead)) >= 0:
        first = space + 1
    if last < len(block) and (space := block.rfind(" ", max(ends, default=last), last)) >= 0:
        last = space
    return first, last
