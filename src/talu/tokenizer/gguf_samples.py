"""Makes texts on which two tokenizers that differ give different tokens."""

import random
from collections.abc import Iterator

__all__ = ["sample_texts"]

PARTS = (
    *("a", "b", "I", "Zz", "the", "McD", "é", "ß", "Ǆ", "ǅ", "e\u0301", "\u0302", "ʰ", "Ж", "й"),
    *(
        "Ω",
        "λ",
        "א",
        "ع",
        "न",
        "ा",
        "ไ",
        "ท",
        "字",
        "漢",
        "語",
        "か",
        "カ",
        "ー",
        "한",
        "ក",
        "\U0001d49c",
    ),
    *("0", "1", "12", "123", "4567", "٣", "½", "²", "Ⅷ", "③", "百"),
    *(" ", " ", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", "\u00a0", "\u3000", "\u2028"),
    *("'s", "'t", "'re", "'VE", "'M", "'ll", "'D", "'", "\u2019", "\u2019s", '"', "n't"),
    *(".", ",", "!", "?", ";", ":", "-", "_", "/", "//", "\\", "(", ")", "[", "]", "{", "}", "<"),
    *(
        ">",
        "=",
        "==",
        "+",
        "*",
        "&",
        "^",
        "%",
        "$",
        "#",
        "@",
        "~",
        "`",
        "|",
        "…",
        "—",
        "。",
        "\uff0c",
    ),
    *("、", "\uff01", "€", "©", "→", "∑", "¬", "😀", "👩\u200d👧", "🇩🇪", "\u200b", "\ufeff", "�"),
)
COUNT = 2500
MOST = 12  # parts of a text


def sample_texts() -> Iterator[str]:
    """Texts of letters, digits, marks, symbols and white space in random order, always the same."""
    generator = random.Random(4)
    for _ in range(COUNT):
        yield "".join(generator.choices(PARTS, k=generator.randint(1, MOST)))
