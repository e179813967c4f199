import base64
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers.processors import TemplateProcessing

from talu.exceptions import TokenizerError
from talu.tokenizer.decoding import TAG_MARK
from talu.tokenizer.files import read_templates
from talu.tokenizer.loading import load
from talu.tokenizer.tokenizer import Tokenizer

TEXT = "She sells sea shells by the sea shore"


def configure(folder: Path, **changes: Any) -> Tokenizer:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return Tokenizer(load(folder))


def test_a_text_survives_encoding_and_decoding(folder: Path) -> None:
    tokenizer = Tokenizer(load(folder))
    text = "naïve café\n\t👍🏽 今日は"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_are_read_as_text_or_as_objects(folder: Path) -> None:
    tokenizer = Tokenizer(load(folder))
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert tokenizer.eos_token_id == tokenizer.token_id("</s>") in tokenizer.special_ids


def test_special_tokens_may_be_in_a_separate_file(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    (folder / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    tokenizer = Tokenizer(load(folder))
    assert (tokenizer.bos_token, tokenizer.eos_token) == (None, "</s>")


def test_a_token_with_a_role_is_special_although_the_vocabulary_does_not_say_so(
    folder: Path,
) -> None:
    tokenizer = configure(folder, eos_token="q")
    q = tokenizer.token_id("q")
    assert q is not None
    assert tokenizer.decode([q]) == ""
    assert tokenizer.decode([q], skip_special_tokens=False) == "q"


def test_a_special_token_that_the_vocabulary_does_not_have_is_added(folder: Path) -> None:
    size = Tokenizer(load(folder)).vocabulary_size
    tokenizer = configure(folder, pad_token="[PAD]")
    assert tokenizer.encode("a[PAD]")[1:] == [size]
    assert tokenizer.vocabulary_size == size + 1


def test_a_class_adds_no_token_that_neither_a_file_nor_the_vocabulary_has(folder: Path) -> None:
    before = Tokenizer(load(folder))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "tokenizer_config.json").write_text("{}")
    after = Tokenizer(load(folder))
    assert after.vocabulary_size == before.vocabulary_size
    assert after.encode("fox") == before.encode("fox", special_tokens=False)


def test_tags_are_shown_although_they_are_marked_special(folder: Path) -> None:
    tokenizer = configure(folder, additional_special_tokens=["<think>", "</think>", "<x>"])
    ids = tokenizer.encode("<think>the<x></think></s>")
    assert tokenizer.decode(ids) == "<think>the</think>"
    decoder = tokenizer.decoder()
    assert "".join([*map(decoder.push, ids), decoder.flush()]) == "<think>the</think>"


def test_an_added_token_with_letters_that_stand_for_bytes_is_decoded_to_itself(
    folder: Path,
) -> None:
    tokenizer = configure(folder, added_tokens_decoder={"400": {"content": "đem"}})
    ids = tokenizer.encode("a đem b", special_tokens=False)
    assert 400 in ids
    assert tokenizer.decode(ids) == "a đem b"
    decoder = tokenizer.decoder()
    assert "".join([*map(decoder.push, ids), decoder.flush()]) == "a đem b"


def test_tags_that_are_tokens_are_marked_on_request(folder: Path) -> None:
    tokenizer = configure(folder, additional_special_tokens=["</think>"])
    ids = [*tokenizer.encode("</"), *tokenizer.encode("think>"), *tokenizer.encode("</think>")]
    decoder = tokenizer.decoder(marks_tags=True)
    assert "".join(map(decoder.push, ids)) == f"</think>{TAG_MARK}</think>"


def test_fewest_tokens_follows_from_the_length_of_a_text(
    tokenizers_by_kind: dict[str, Tokenizer],
) -> None:
    known = {kind: each.fewest_tokens("x" * 10_000) for kind, each in tokenizers_by_kind.items()}
    assert known["byte_level"] > 100 < known["byte_fallback"]
    assert known["metaspace"] == known["words"] == 0  # an unknown word of any length is one token


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_no_text_has_fewer_tokens_than_fewest_tokens(
    tokenizers_by_kind: dict[str, Tokenizer], kind: str, text: str
) -> None:
    tokenizer = tokenizers_by_kind[kind]
    count = len(tokenizer.encode(text, special_tokens=False))
    assert tokenizer.fewest_tokens(text) <= count


def test_fewest_tokens_is_0_if_an_added_token_absorbs_white_space(folder: Path) -> None:
    tokenizer = configure(folder, additional_special_tokens=["<x>"], added_tokens_decoder={})
    assert tokenizer.fewest_tokens("x" * 3000) > 0
    greedy = {"content": "<y>", "rstrip": True}
    tokenizer = configure(folder, added_tokens_decoder={"401": greedy})
    assert tokenizer.fewest_tokens("x" * 3000) == 0


def test_dropout_is_switched_off(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    ids = Tokenizer(load(folder)).encode(TEXT)
    content["model"]["dropout"] = 0.9
    path.write_text(json.dumps(content))
    assert Tokenizer(load(folder)).encode(TEXT) == ids


def test_contradicting_files_about_bos_and_eos_are_noted(folder: Path) -> None:
    assert Tokenizer(load(folder)).notes == ()
    assert configure(folder, add_bos_token=False, add_eos_token=False).notes == ()
    (note,) = configure(folder, add_eos_token=True).notes
    assert "add_eos_token: true" in note


def test_tokenizer_json_decides_which_tokens_surround_a_text(folder: Path) -> None:
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.save(str(folder / "tokenizer.json"))
    tokenizer = configure(folder, add_bos_token=False, add_eos_token=True)
    plain = tokenizer.encode("the fox", special_tokens=False)
    assert tokenizer.encode("the fox") == [tokenizer.token_id("<s>"), *plain]


def test_a_special_token_in_the_text_is_one_token(folder: Path) -> None:
    tokenizer = Tokenizer(load(folder))
    assert tokenizer.encode("</s>") == [tokenizer.eos_token_id]


def test_the_text_of_one_token_keeps_its_space(tokenizers_by_kind: dict[str, Tokenizer]) -> None:
    for kind in ("byte_fallback", "metaspace", "byte_level"):
        tokenizer = tokenizers_by_kind[kind]
        ids = tokenizer.encode("the fox")
        assert "".join(map(tokenizer.token_text, ids)).strip() == "the fox"
        assert tokenizer.token_text(tokenizer.eos_token_id or 0) == "</s>"


def test_stored_limits_do_not_truncate_texts(folder: Path) -> None:
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(max_length=2)
    backend.enable_padding(length=9)
    backend.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer(load(folder))
    assert tokenizer.decode(tokenizer.encode("the lazy dog jumps")) == "the lazy dog jumps"


def test_the_template_of_the_configuration_is_read(folder: Path) -> None:
    assert read_templates(folder) == {}
    configure(folder, chat_template="{{ 1 }}")
    assert read_templates(folder) == {"default": "{{ 1 }}"}


def test_named_templates_are_read(folder: Path) -> None:
    named = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    configure(folder, chat_template=named)
    assert read_templates(folder) == {"default": "A", "tool_use": "B"}


def test_templates_may_be_an_object_by_name(folder: Path) -> None:
    configure(folder, chat_template={"default": "A", "tool_use": "B"})
    assert read_templates(folder) == {"default": "A", "tool_use": "B"}


def test_a_template_file_replaces_all_configured_templates(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("file")
    configure(folder, chat_template={"default": "A", "tool_use": "B"})
    assert read_templates(folder) == {"default": "file"}


def test_a_template_in_a_separate_file_takes_precedence(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("file é", encoding="utf-8")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("rag")
    configure(folder, chat_template="config")
    assert read_templates(folder) == {"default": "file é", "rag": "rag"}


def test_the_error_about_a_missing_tokenizer_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(
        TokenizerError, match=r"no tokenizer\.json in .*download the file"
    ) as caught:
        Tokenizer(load(tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.model", "tekken.json", "vocab.txt"])
def test_the_error_about_another_format_has_the_command_to_convert_it(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"\x0a\x0e")
    with pytest.raises(TokenizerError, match=rf"has {name}.*save_pretrained"):
        Tokenizer(load(tmp_path))


def change(folder: Path, **parts: Any) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}},
        {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}},
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        {"model": {"type": "WordLevel", "unk_token": "?", "vocab": {"a": 0}}},
        {"model": {"type": "Unigram", "unk_id": None, "vocab": [["a", 0.0]]}},
    ],
    ids=["damaged table", "empty pattern", "no length", "no unknown token", "no unknown id"],
)
def test_parts_that_fail_or_panic_in_the_package_raise_a_tokenizer_error(
    folder: Path, parts: dict[str, Any]
) -> None:
    change(folder, **parts)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be read: the tokenizers"):
        Tokenizer(load(folder))


def test_a_panic_while_a_text_is_tokenized_raises_a_tokenizer_error(folder: Path) -> None:
    # a table that is consulted for few characters only
    table = base64.b64encode(b"\x04\0\0\0abcdefgh").decode()
    lower = {"type": "Replace", "pattern": {"Regex": "[^Z]"}, "content": ""}
    precompiled = {"type": "Precompiled", "precompiled_charsmap": table}
    change(folder, normalizer={"type": "Sequence", "normalizers": [lower, precompiled]})
    tokenizer = Tokenizer(load(folder))
    with pytest.raises(TokenizerError, match="panicked"):
        tokenizer.encode("Z")


def test_a_file_that_is_far_too_large_is_refused_before_it_is_read(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = folder / name
        content = path.read_bytes()
        os.truncate(path, 2**40)
        with pytest.raises(TokenizerError, match=f"{name} has 1,099,511,627,776 bytes"):
            Tokenizer(load(folder))
        path.write_bytes(content)


def test_a_text_that_is_far_too_long_is_refused(folder: Path) -> None:
    with pytest.raises(TokenizerError, match="at most 16,777,216"):
        Tokenizer(load(folder)).encode("a" * (2**24 + 1))


def test_long_texts_have_the_same_tokens_as_short_ones(folder: Path) -> None:
    tokenizer = Tokenizer(load(folder))
    lines = [f"{TEXT} {number}.\n" for number in range(200)]
    each = [tokenizer.encode(line, special_tokens=False) for line in lines]
    assert tokenizer.encode("".join(lines)) == [number for ids in each for number in ids]


def everything(folder: Path) -> object:
    return Tokenizer(load(folder)), read_templates(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b""),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b'{"version": "1.0", "model": {"type": "BPE", "vocab": 3}}'),
        ("tokenizer.json", b"\xff\xfe"),
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b"[" * 100_000),
        ("tokenizer_config.json", b'{"chat_template": 7}'),
        ("tokenizer_config.json", b'{"chat_template": {"default": 7}}'),
        ("tokenizer_config.json", b'{"eos_token": 7}'),
        ("tokenizer_config.json", b'{"eos_token": "\\ud800"}'),
        ("tokenizer_config.json", b'{"eos_token": {"content": "a", "lstrip": "yes"}}'),
        ("tokenizer_config.json", b'{"additional_special_tokens": "a"}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {"content": "a"}}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": [7]}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"' + b"9" * 5000 + b'": {}}}'),
        ("tokenizer_config.json", b'{"split_special_tokens": "no"}'),
        ("added_tokens.json", b'{"a": -1}'),
        ("added_tokens.json", b'{"a": "b"}'),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "default"}]}'),
        ("special_tokens_map.json", b"null"),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=name):
        everything(folder)


def test_a_lone_surrogate_is_an_error_that_names_its_place(folder: Path) -> None:
    with pytest.raises(TokenizerError, match="character 2"):
        Tokenizer(load(folder)).encode("ab\ud800")


def test_a_negative_id_is_refused(folder: Path) -> None:
    with pytest.raises(TokenizerError, match="from 0 to 2³² - 1"):
        Tokenizer(load(folder)).decode([-1])


def test_many_threads_may_use_one_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(load(folder))
    texts = [f"the fox {number} 今日は" for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(tokenizer.encode, texts))
        assert list(pool.map(tokenizer.decode, ids)) == texts


def test_a_tokenizer_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")

    def refuse(path: Path) -> bytes:  # root may read everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json.*Permission denied"):
        Tokenizer(load(tmp_path))
