"""What a model folder says about generating: its end tokens and its sampling defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from talu.config import GenerationConfig
from talu.exceptions import ValidationError
from talu.models.settings import Settings
from talu.sampling import FROM_MODEL

__all__ = ["GenerationDefaults", "read_generation"]

HARMLESS = (  # names that choose no token, or that say how transformers is to be called
    "_from_model_config",
    "bos_token_id",
    "cache_implementation",
    "max_length",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "return_dict_in_generate",
    "transformers_version",
    "trust_remote_code",
    "use_cache",
)


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """The model's own word on generation.

    Attributes:
        end_token_ids: tokens that end a generation.
        values: settings by their names in generation_config.json; only those that talu knows.
        not_honoured: names of settings in the file that would change the tokens and that talu
            does not have.
    """

    end_token_ids: frozenset[int]
    values: Mapping[str, Any]
    not_honoured: tuple[str, ...]


def read_generation(folder: Path, settings: Settings, vocabulary: int) -> GenerationDefaults:
    """Read generation_config.json, if there is one; its end tokens win over config.json's.

    Raises:
        ModelError: the file is damaged, or one of its values is out of range.
    """
    settings.ignore("eos_token_id")
    path = folder / "generation_config.json"
    own = Settings.from_file(path) if path.exists() else Settings(path, {})
    source = own if own.has("eos_token_id") else settings
    ends: list[int] = []
    if source.has("eos_token_id"):
        ends = source.integers("eos_token_id", 0, vocabulary - 1)
    values = _known_values(own)
    own.ignore(*HARMLESS)
    not_honoured = tuple(name for name, value in own.unread().items() if not _is_neutral(value))
    return GenerationDefaults(frozenset(ends), MappingProxyType(values), not_honoured)


def _known_values(own: Settings) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, ours in FROM_MODEL.items():
        if not own.has(name):
            continue
        config = GenerationConfig()
        try:
            setattr(config, ours, own.value(name))
        except ValidationError as error:
            raise own.error(name, f"does not fit: {error}") from error
        values[name] = getattr(config, ours)
    if not own.flag("do_sample", default=True):
        values["temperature"] = 0.0
    return values


def _is_neutral(value: object) -> bool:
    """Whether a setting of this value is switched off: 0 or 1, and empty, do it for all."""
    return value is not True and value in (0, 1, "", [], {})
