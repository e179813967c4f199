"""Lists how the byte-level tokenizers that GGUF files name split a text into words.

The patterns are those that the models were published with. llama.cpp approximates some of them,
because its engine does not tell the cases of letters apart.
"""

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["DEFAULT", "PRE_TOKENIZERS", "Words"]


class Words(NamedTuple):
    """How a text is split, and what the model's name implies.

    Attributes:
        patterns: each splits the pieces that the ones before left: into its matches, and what is
            between them.
        whole_words: a word that is a token is not built by merges.
        bos: the text gets a token at its beginning if the file does not say otherwise.
        bytes: a word is a run of bytes, written as printable characters; otherwise spaces become
            "▁", and unknown characters bytes such as "<0xE2>".
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    bos: bool = False
    bytes: bool = True


SHORT = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
LETTERS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
OTHERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*%s"
WITH_SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"
DIGITS_FROM_RIGHT = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
SENTENCE = r" ?[^(\s|.,!?" "\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
ASCII_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
MARKS = rf"{ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
LINES = r"[^\n]+|[\n]+"

GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA_3 = SHORT + LETTERS + r"|\p{N}{1,3}" + OTHERS + SPACES
QWEN_2 = SHORT + LETTERS + r"|\p{N}" + OTHERS + SPACES
QWEN_35 = SHORT + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + SPACES
GPT_4O = CASED % (SHORT + "?", SHORT + "?") + r"|\p{N}{1,3}" + WITH_SLASH + SPACES
TEKKEN = CASED % ("", "") + r"|\p{N}" + WITH_SLASH + SPACES
YOUTU = CASED % (SHORT + "?", SHORT + "?") + r"|\p{N}" + WITH_SLASH + SPACES
NO_HAN = CASED.replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]")
KIMI_K2 = r"[\p{Han}]+|" + NO_HAN % (SHORT + "?", SHORT + "?") + r"|\p{N}{1,3}" + OTHERS + SPACES
JAIS_2 = (
    SHORT + LETTERS + r"|\p{N}{1,3}" + OTHERS + r"|\s*[\r\n]+"
    + "".join(rf"|\s{{{2**n}}}(?!\S)" for n in range(9, 1, -1))
    + r"|\s{1,2}(?!\S)|\s{1}"
)  # fmt: skip
BAILING = (
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])" + LETTERS + r"|\p{N}" + OTHERS
    + r"|\s*[\r\n]|\s+(?!\S)|\s+"
)  # fmt: skip
SEED = SHORT + LETTERS + r"|\p{N}| ?[^\s\p{L}\p{N}\r\n]+" + SPACES
EXAONE = (
    SHORT + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
    + r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)  # fmt: skip
MINI_CPM = SHORT + LETTERS + r"|\p{N}+" + OTHERS + SPACES
CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
CJK_AND_HANGUL = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
DEEPSEEK_3 = (r"\p{N}{1,3}", CJK, MARKS + r"| ?[\p{P}\p{S}]+[\r\n]*" + SPACES)
DEEPSEEK_LETTERS = (  # cased letters, as the model lists them
    "A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-"
    "\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-"
    "\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20"
    "-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc"
    "\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6"
    "-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-"
    "\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-"
    "\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-"
    "\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-"
    "\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-"
    "\U000118df\U0001e900-\U0001e943"
)
DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{DEEPSEEK_LETTERS}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    CJK_AND_HANGUL,
    r"\p{N}+",
)
DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK_AND_HANGUL, r"\p{N}")
SPARK = (
    r"\p{N}{1,3}",
    CJK,
    MARKS + r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+",
    r"\p{N}",
)
YOUTU_WORDS = (
    "[\uac00-\ud7a3\u3131-\u318e]+"
    "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    "|[\u3105-\u312f]+|" + CJK
)
ASIAN = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f"
    "\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff"
    "\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
CHAMELEON = (
    "<sentinel:[0-9]+>",
    "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    r"([\t\n]|    |  )",
    r"\p{N}",
    r"[\p{P}!-/:-@\[-`{-~]",
    GPT_2,
)

DEFAULT = Words(patterns=(r"[\p{P}\$\+<=>\^~\|]+", GPT_2, r"\p{N}+", "[0-9][0-9][0-9]"))
_GROUPS: tuple[tuple[str, Words], ...] = (
    ("default", DEFAULT),
    (
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        Words(patterns=(LLAMA_3,), whole_words=True, bos=True),
    ),
    ("dbrx smaug-bpe chatglm-bpe", Words(patterns=(LLAMA_3,))),
    ("glm4 glm5", Words(patterns=(LLAMA_3,), whole_words=True)),
    ("jais-2", Words(patterns=(JAIS_2,))),
    ("minicpm5", Words(patterns=(r"\p{N}{1,3}", MINI_CPM), whole_words=True)),
    ("deepseek-llm", Words(patterns=DEEPSEEK_LLM)),
    ("deepseek-coder", Words(patterns=DEEPSEEK_CODER)),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", Words(patterns=DEEPSEEK_3)),
    ("spark2_5", Words(patterns=SPARK)),
    ("youtu", Words(patterns=(YOUTU_WORDS, YOUTU), whole_words=True)),
    ("falcon", Words(patterns=(r"[\p{P}\$\+<=>\^~\|`]+", GPT_2, "[0-9][0-9][0-9]"))),
    (
        "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
        Words(patterns=(r"\p{N}", GPT_2)),
    ),
    (
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert "
        "jina-v1-en jina-v2-code roberta-bpe exaone4 mpt olmo jais trillion granite-docling",
        Words(patterns=(GPT_2,)),
    ),
    (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan solar-open grok-2",
        Words(patterns=(QWEN_2,)),
    ),
    ("qwen35", Words(patterns=(QWEN_35,))),
    ("poro-chat bloom gpt3-finnish", Words(patterns=(SENTENCE,))),
    ("viking", Words(patterns=(SENTENCE, r"\p{N}"))),
    ("tekken", Words(patterns=(TEKKEN,), whole_words=True, bos=True)),
    ("chameleon", Words(patterns=CHAMELEON, bos=True)),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", Words(patterns=(GPT_4O,))),
    ("granite-embed-multi-97m", Words(patterns=(GPT_4O,), whole_words=True)),
    ("tiny_aya cohere2moe", Words(patterns=(DIGITS_FROM_RIGHT, GPT_4O))),
    ("kimi-k2", Words(patterns=(KIMI_K2,))),
    ("superbpe", Words(patterns=(r"\p{N}+", DIGITS_FROM_RIGHT))),
    ("bailingmoe bailingmoe2 llada-moe", Words(patterns=(BAILING,))),
    ("seed-coder", Words(patterns=(SEED,))),
    ("ufakzeka", Words(patterns=(LETTERS[1:] + r"|\p{N}" + OTHERS + SPACES,))),
    (
        "afmoe",
        Words(patterns=(DIGITS_FROM_RIGHT, ASIAN, MARKS + r"| ?[\p{P}\p{S}]+[\r\n]*" + SPACES)),
    ),
    ("laguna", Words(patterns=(LINES, QWEN_2))),
    ("exaone-moe", Words(patterns=(EXAONE,))),
    ("gemma4 granite-embed-multi-311m", Words(patterns=(LINES,), bos=True, bytes=False)),
    ("sarvam-moe", Words(patterns=(LINES,), bytes=False)),
)
PRE_TOKENIZERS: Mapping[str, Words] = {
    name: words for names, words in _GROUPS for name in names.split()
}
