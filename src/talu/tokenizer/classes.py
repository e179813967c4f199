"""Applies what a checkpoint's tokenizer class changes in ``tokenizer.json``.

In transformers, some classes have default special tokens and read flags from
``tokenizer_config.json`` that change parts of ``tokenizer.json``.
"""

import json
from collections.abc import Mapping

import tokenizers
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece

from talu.tokenizer.files import TokenSettings
from talu.tokenizer.replaced import state_of

__all__ = [
    "adapt_parts",
    "adapt_post_processor",
    "default_texts",
    "default_tokens",
    "effective_class",
    "lower_first",
]

_BERT = ("BertTokenizer", "DistilBertTokenizer")
_BYTE_LEVEL = ("GPT2Tokenizer", "Qwen2Tokenizer", "RobertaTokenizer")
_CLASS_OF = {  # tokenizer class of a model type, if transformers defines one
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "mistral": "",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
_BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_END_OF_TEXT = "<|endoftext|>"
_TOKENS: Mapping[str, Mapping[str, str]] = {
    "BertTokenizer": _BERT_TOKENS,
    "DistilBertTokenizer": _BERT_TOKENS,
    "GPT2Tokenizer": dict.fromkeys(("bos_token", "eos_token", "unk_token"), _END_OF_TEXT),
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "Qwen2Tokenizer": dict.fromkeys(("eos_token", "unk_token", "pad_token"), _END_OF_TEXT),
    "RobertaTokenizer": _ROBERTA_TOKENS,
    "XLMRobertaTokenizer": _ROBERTA_TOKENS,
}

_ENDS = {  # the roles of the tokens that a class puts around a text
    "BertTokenizer": ("cls_token", "sep_token"),
    "DistilBertTokenizer": ("cls_token", "sep_token"),
    "RobertaTokenizer": ("cls_token", "sep_token"),
    "XLMRobertaTokenizer": ("bos_token", "eos_token"),
}


def effective_class(settings: TokenSettings, backend: tokenizers.Tokenizer) -> str:
    """The class that transformers builds the tokenizer with; "" is the generic one."""
    declared, model = settings.tokenizer_class, settings.model_type
    known = _CLASS_OF.get(model)
    if declared == "LlamaTokenizer" and model != "qwen2" and _is_byte_level(backend):
        return ""
    name = declared or known or ""
    if declared and known is not None and known != declared:
        # "mistral" has no specific class; files of Qwen 2 often name a wrong one
        name = known if model == "qwen2" or not known else declared
    return name if name in _TOKENS else ""


def default_tokens(name: str) -> dict[str, AddedToken | None]:
    """The special tokens of a class that apply unless the files name others."""
    return {
        role: AddedToken(text, special=True, normalized=False)
        for role, text in _TOKENS.get(name, {}).items()
    }


def default_texts() -> set[str]:
    """The default tokens of all classes."""
    return {text for tokens in _TOKENS.values() for text in tokens.values()}


def adapt_parts(name: str, settings: TokenSettings, backend: tokenizers.Tokenizer) -> None:
    """Replace the parts of the backend that the class builds differently.

    Raises:
        TokenizerError: a flag in ``tokenizer_config.json`` is not a boolean.
    """
    if name in _BERT and isinstance(backend.model, WordPiece):
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=bool(settings.flag("tokenize_chinese_chars", True)),
            strip_accents=settings.flag("strip_accents"),
            lowercase=bool(settings.flag("do_lower_case", True)),
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    elif name in _BYTE_LEVEL:
        _set_prefix_space(backend, bool(settings.flag("add_prefix_space", False)))
    elif name == "XLMRobertaTokenizer":
        _set_scheme(backend, "always" if settings.flag("add_prefix_space", True) else "never")
    elif name == "LlamaTokenizer" and isinstance(backend.model, BPE):
        prefix = bool(settings.flag("add_prefix_space", True))
        scheme = "always" if settings.flag("legacy", False) else "first"
        backend.normalizer = None
        backend.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement="▁", prepend_scheme=scheme if prefix else "never", split=False
        )
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        backend.decoder = decoders.Sequence([*steps, *[decoders.Strip(" ", 1, 0)] * prefix])


def adapt_post_processor(
    name: str, named: Mapping[str, AddedToken | None], backend: tokenizers.Tokenizer
) -> None:
    """Set which tokens the class puts around one text or two; they must have been added before."""
    roles = _ENDS.get(name, ())
    tokens = [token for role in roles if (token := named.get(role)) is not None]
    if len(tokens) < 2:
        return
    ends = [(token.content, backend.token_to_id(token.content)) for token in tokens]
    if any(number is None for _, number in ends):
        return
    begin, end = (content for content, _ in ends)
    if name in _BERT:
        pair = [f"{begin}:0", "$A:0", f"{end}:0", "$B:1", f"{end}:1"]
    else:
        pair = [begin, "$A", end, end, "$B", end]
    backend.post_processor = processors.TemplateProcessing(
        single=[begin, "$A", end], pair=pair, special_tokens=ends
    )


def lower_first(backend: tokenizers.Tokenizer) -> None:
    """Lower-case every text before the other normalizers, as sentence-transformers does.

    Special tokens are found in the text before it is lower-cased.
    """
    normalizer = backend.normalizer
    if '"Lowercase"' not in json.dumps(state_of(normalizer)):
        parts = [normalizers.Lowercase(), *([] if normalizer is None else [normalizer])]
        backend.normalizer = normalizers.Sequence(parts)


def _is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    parts = (backend.pre_tokenizer, backend.decoder)
    return any('"ByteLevel"' in json.dumps(state_of(part)) for part in parts)


def _set_prefix_space(backend: tokenizers.Tokenizer, prefix: bool) -> None:
    for part in _pre_tokenizers(backend):
        if isinstance(part, pre_tokenizers.ByteLevel):
            part.add_prefix_space = prefix


def _set_scheme(backend: tokenizers.Tokenizer, scheme: str) -> None:
    for part in _pre_tokenizers(backend):
        if isinstance(part, pre_tokenizers.Metaspace):
            part.prepend_scheme = scheme


def _pre_tokenizers(backend: tokenizers.Tokenizer) -> list[pre_tokenizers.PreTokenizer]:
    part = backend.pre_tokenizer
    if not isinstance(part, pre_tokenizers.Sequence):
        return [] if part is None else [part]
    count = len((state_of(part) or {})["pretokenizers"])
    return [part[place] for place in range(count)]
