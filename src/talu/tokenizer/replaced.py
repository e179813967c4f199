"""Finds the parts of ``tokenizer.json`` that transformers 5 replaces by those of its class.

talu follows ``tokenizer.json``, because the model was trained with it; a note tells the user
what differs.
"""

import json
from collections.abc import Sequence
from typing import Any

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordPiece

from talu.tokenizer.files import TokenSettings

__all__ = ["note_on_replaced_parts", "state_of", "steps_of"]

Steps = list[dict[str, Any]]
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NESTED = ("normalizers", "pretokenizers", "decoders")
_SPLITS_AT_SPACES = {"type": "WhitespaceSplit"}
_ONLY_SPACES = (  # normalizers without effect where the text is then split at white space
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Strip", "strip_left": False, "strip_right": True},
)
_BPE: dict[str, Any] = {
    "continuing_subword_prefix": "",
    "end_of_word_suffix": "",
    "ignore_merges": False,
}
_WORD_PIECE: dict[str, Any] = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
_SHOWN = 100  # characters of a part in the note


def state_of(part: object) -> dict[str, Any] | None:
    """A part of the backend as its object in ``tokenizer.json``."""
    if part is None:
        return None
    state = part.__getstate__()
    return dict(json.loads(state)) if isinstance(state, bytes) else {}


def steps_of(part: object) -> Steps:
    """The steps of a part, sequences resolved, without the fields that do not matter for ids."""
    return _resolved(state_of(part))


def note_on_replaced_parts(
    name: str, settings: TokenSettings, backend: tokenizers.Tokenizer
) -> list[str]:
    """A note if the class has parts with another effect than those of ``tokenizer.json``.

    Args:
        name: the class with which transformers 5 loads the folder.
        settings: the switches of the class.
        backend: the tokenizer, after the switches have been applied to its parts.
    """
    own = _parts_of_file(backend)
    other = _parts_of_class(name, settings, own, backend)
    differing = [
        f"the {part} ({_shown(own[part], steps)}) by {_shown(steps, own[part])}"
        for part, steps in other.items()
        if own[part] != steps
    ]
    if not differing:
        return []
    return [
        f"transformers 5 loads this model with {name} and would replace a part of tokenizer.json: "
        f"{' and '.join(differing)}. tokenizer.json decides here, because the model was trained "
        "with it; some texts may have other token ids than in transformers 5"
    ]


def _parts_of_file(backend: tokenizers.Tokenizer) -> dict[str, Steps]:
    parts = {
        "normalizer": steps_of(backend.normalizer),
        "pre-tokenizer": steps_of(backend.pre_tokenizer),
        "model": _switches(backend),
    }
    if parts["pre-tokenizer"][:1] == [_SPLITS_AT_SPACES]:
        parts["normalizer"] = [step for step in parts["normalizer"] if step not in _ONLY_SPACES]
    return parts


def _parts_of_class(
    name: str, settings: TokenSettings, own: dict[str, Steps], backend: tokenizers.Tokenizer
) -> dict[str, Steps]:
    """The parts that the constructor of the class makes, as far as they are not talu's."""
    prefix = bool(settings.flag("add_prefix_space", name == "XLMRobertaTokenizer"))
    match name, backend.model:
        case "XLMRobertaTokenizer", _:
            metaspace = pre_tokenizers.Metaspace(prepend_scheme="always" if prefix else "never")
            tables = [step for step in own["normalizer"] if step["type"] == "Precompiled"]
            words = [_SPLITS_AT_SPACES, *steps_of(metaspace)]
            return {"normalizer": tables[:1], "pre-tokenizer": words}
        case "GPT2Tokenizer" | "RobertaTokenizer", BPE():
            words = steps_of(pre_tokenizers.ByteLevel(add_prefix_space=prefix))
            return {"normalizer": [], "pre-tokenizer": words, "model": [_BPE]}
        case "Qwen2Tokenizer", BPE():
            words = steps_of(pre_tokenizers.Split(Regex(_QWEN_WORDS), "isolated"))
            words += steps_of(pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False))
            return {
                "normalizer": steps_of(normalizers.NFC()),
                "pre-tokenizer": words,
                "model": [_BPE],
            }
        case "LlamaTokenizer", BPE():
            return {"model": [_BPE]}
        case "BertTokenizer" | "DistilBertTokenizer", WordPiece():
            return {"model": [_WORD_PIECE]}
    return {}


def _resolved(state: dict[str, Any] | None) -> Steps:
    if state is None:
        return []
    nested = next((state[key] for key in _NESTED if key in state), None)
    if nested is not None:
        return [step for each in nested for step in _resolved(each)]
    return [{key: value for key, value in state.items() if key != "trim_offsets"}]


def _switches(backend: tokenizers.Tokenizer) -> Steps:
    """The switches of a model that change ids; an unset prefix or suffix is an empty one."""
    model = backend.model
    defaults: dict[str, Any] = {}
    if isinstance(model, BPE):
        defaults = _BPE
    elif isinstance(model, WordPiece):
        defaults = _WORD_PIECE
    return [{name: getattr(model, name) or type(value)() for name, value in defaults.items()}]


def _shown(steps: Steps, others: Sequence[dict[str, Any]]) -> str:
    """The names of the steps, with their fields where the names do not tell the difference."""
    names = [str(step.get("type", "")) for step in steps]
    if names == [str(step.get("type", "")) for step in others]:
        names = [
            ", ".join(
                f"{step.get('type', '')} {key}={json.dumps(value, ensure_ascii=False)}".strip()
                for key, value in step.items()
                if value != other.get(key)
            )
            or name
            for name, step, other in zip(names, steps, others, strict=True)
        ]
    text = ", ".join(names) or "none"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
