"""Reads a model's end tokens and sampling defaults.

They are in generation_config.json, or in config.json if there is no such file; other sources than
folders use the names of these files' keys.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from talu.config import GenerationConfig
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.sampling import FROM_MODEL
from talu.sources.settings import Settings

__all__ = ["GENERATION_KEYS", "GenerationDefaults", "read_generation"]

NOT_HONOURED: Mapping[str, tuple[object, ...]] = {  # unsupported settings: neutral values
    "bad_words_ids": ([],),
    "begin_suppress_tokens": ([],),
    "constraints": ([],),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1,),
    "max_time": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "no_repeat_ngram_size": (0,),
    "num_beam_groups": (1,),
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "penalty_alpha": (0,),
    "sequence_bias": ({}, []),
    "stop_strings": ([], ""),
    "suppress_tokens": ([],),
    "token_healing": (False,),
    "top_h": (1,),
    "typical_p": (1,),
    "watermarking_config": ({},),
}
HARMLESS = (  # settings that do not affect the tokens
    "_commit_hash",
    "_from_model_config",
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "bos_token_id",
    "cache_config",
    "cache_implementation",
    "decoder_start_token_id",
    "diversity_penalty",
    "early_stopping",
    "length_penalty",
    "low_memory",
    "max_cache_len",
    "max_length",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "prompt_lookup_num_tokens",
    "remove_invalid_values",
    "renormalize_logits",
    "return_dict_in_generate",
    "target_lookbehind",
    "transformers_version",
    "trust_remote_code",
    "use_cache",
    "use_mtp",
)
GENERATION_KEYS = frozenset({*FROM_MODEL, *NOT_HONOURED, *HARMLESS, "do_sample"})


class GenerationDefaults(NamedTuple):
    """A model's settings for generation.

    Attributes:
        end_token_ids: tokens that end a generation.
        values: supported settings by their names in generation_config.json.
        notes: settings that are not used.
    """

    end_token_ids: frozenset[int]
    values: Mapping[str, Any]
    notes: tuple[str, ...]


def read_generation(
    own: Settings | None, settings: Settings, vocabulary: int
) -> GenerationDefaults:
    """Read the defaults for generation, and those of the network's settings if there are none.

    Args:
        own: content of generation_config.json; if it has no end tokens, those of config.json are
            used.
        settings: content of config.json.
        vocabulary: number of tokens; an end token must be one of them.
    """
    source = settings if own is None else own
    notes: list[str] = []
    with_ends = source if source.has("eos_token_id") else settings
    ends = _end_tokens(with_ends, vocabulary, notes)
    values = _known_values(source, notes)
    if own is not None:
        own.ignore(*HARMLESS)
    names = source.unread() if own is not None else settings.unread().keys() & NOT_HONOURED.keys()
    unused = [name for name in sorted(names) if not _is_neutral(name, source.value(name))]
    if unused:
        notes.append(f"settings of {source.path.name} that have no effect: {', '.join(unused)}")
    return GenerationDefaults(ends, MappingProxyType(values), tuple(notes))


def _end_tokens(source: Settings, vocabulary: int, notes: list[str]) -> frozenset[int]:
    """The end tokens within the vocabulary."""
    if not source.has("eos_token_id"):
        return frozenset()
    value = source.value("eos_token_id")
    items = value if isinstance(value, list) else [value]
    ends = {item for item in items if type(item) is int and 0 <= item < vocabulary}
    if items and not ends:
        notes.append(
            f"'eos_token_id' in {source.path.name} is {shown(value)}, which is not a token of "
            "the model; it is ignored"
        )
    return frozenset(ends)


def _known_values(source: Settings, notes: list[str]) -> dict[str, Any]:
    """The supported settings; a note names those with an invalid value."""
    values: dict[str, Any] = {}
    dropped = []
    for name, ours in FROM_MODEL.items():
        if not source.has(name):
            continue
        value, config = source.value(name), GenerationConfig()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        try:
            setattr(config, ours, value)
        except (ValidationError, OverflowError):
            dropped.append(f"{name} = {shown(value)}")
        else:
            values[name] = getattr(config, ours)
    if source.has("do_sample"):
        sampling = source.value("do_sample")
        if sampling is False:
            values["temperature"] = 0.0
        elif sampling is not True:
            dropped.append(f"do_sample = {shown(sampling)}")
    if dropped:
        notes.append(f"settings of {source.path.name} that are out of range: {', '.join(dropped)}")
    return values


def _is_neutral(name: str, value: object) -> bool:
    """Whether an unsupported setting is switched off."""
    if name in NOT_HONOURED:
        return any(value == neutral for neutral in NOT_HONOURED[name])
    return value is False or value in ("", [], {})
