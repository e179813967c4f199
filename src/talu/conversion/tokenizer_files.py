"""Writes the tokenizer, templates and generation defaults of any model as files of a folder."""

import json
from collections.abc import Mapping

from talu.error_text import shown
from talu.sources.source import ModelSource
from talu.tokenizer.classes import effective_class
from talu.tokenizer.files import TokenSettings
from talu.tokenizer.replaced import note_on_replaced_parts

__all__ = ["json_file", "tokenizer_files"]

CLASS = "PreTrainedTokenizerFast"  # of transformers: it uses tokenizer.json as it is


def tokenizer_files(
    source: ModelSource, model_type: str, context: int
) -> tuple[dict[str, bytes], list[str]]:
    """The content of files by their names, and notes.

    Args:
        source: the model's files.
        model_type: as in config.json.
        context: positions that the model was trained for.

    Raises:
        TokenizerError: the tokenizer is missing or damaged.
    """
    loaded = source.tokenizer()
    templates = dict(source.chat_templates())
    config: dict[str, object] = {
        "tokenizer_class": CLASS,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        **loaded.names,
    }
    if [*templates] == ["default"]:
        config["chat_template"] = templates["default"]
    elif templates:
        config["chat_template"] = [
            {"name": name, "template": text} for name, text in sorted(templates.items())
        ]
    files = {
        "tokenizer.json": loaded.backend.to_str(pretty=True).encode(),
        "tokenizer_config.json": json_file(config),
    }
    generation = source.generation()
    if generation is not None:
        values = {
            key: value
            for key, value in generation.as_dict().items()
            if value is not None and "." not in key
        }
        files["generation_config.json"] = json_file(values)
    settings = TokenSettings(config=config, model_type=model_type, tokenizer_class="", named={})
    name = effective_class(settings, loaded.backend)
    replaced = note_on_replaced_parts(name, settings, loaded.backend)
    known = loaded.backend.get_added_tokens_decoder().values()
    special = {token.content for token in known if token.special}
    plain = sorted({token for token in loaded.names.values() if token not in special})
    notes = [f"the token {shown(token)} is found as a whole in every text" for token in plain]
    return files, [*notes, *loaded.notes, *replaced]


def json_file(values: Mapping[str, object]) -> bytes:
    """The content of a JSON file; lone surrogates, which UTF-8 does not have, are escaped."""
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")
