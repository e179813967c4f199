import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers.processors import TemplateProcessing

from talu.exceptions import TokenizerError
from talu.tokenizer.tokenizer import Tokenizer


def configure(folder: Path, **changes: Any) -> Tokenizer:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return Tokenizer.from_folder(folder)


def test_a_text_comes_back_from_its_tokens(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    text = "naïve café\n\t👍🏽 今日は"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_are_read_as_text_or_as_objects(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert tokenizer.eos_token_id == tokenizer.token_id("</s>") in tokenizer.special_ids


def test_special_tokens_may_stand_in_their_own_file(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    (folder / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    tokenizer = Tokenizer.from_folder(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token) == (None, "</s>")


def test_a_token_with_a_role_is_special_although_the_vocabulary_does_not_say_so(
    folder: Path,
) -> None:
    tokenizer = configure(folder, eos_token="q")
    q = tokenizer.token_id("q")
    assert q is not None
    assert tokenizer.decode([q]) == ""
    assert tokenizer.decode([q], skip_special_tokens=False) == "q"


def test_a_role_that_the_vocabulary_does_not_have_adds_no_token(folder: Path) -> None:
    size = Tokenizer.from_folder(folder).vocabulary_size
    tokenizer = configure(folder, pad_token="[PAD]", eos_token="<|none|>")
    assert tokenizer.vocabulary_size == size
    assert tokenizer.eos_token_id is None


def test_the_file_says_what_stands_around_a_text(folder: Path) -> None:
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.save(str(folder / "tokenizer.json"))
    tokenizer = configure(folder, add_bos_token=False, add_eos_token=True)
    plain = tokenizer.encode("the fox", special_tokens=False)
    assert tokenizer.encode("the fox") == [tokenizer.token_id("<s>"), *plain]


def test_a_special_token_in_the_text_is_one_token(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.encode("</s>") == [tokenizer.eos_token_id]


def test_the_text_of_one_token_keeps_its_space(tokenizers_by_kind: dict[str, Tokenizer]) -> None:
    for kind in ("byte_fallback", "metaspace", "byte_level"):
        tokenizer = tokenizers_by_kind[kind]
        ids = tokenizer.encode("the fox")
        assert "".join(map(tokenizer.token_text, ids)).strip() == "the fox"
        assert tokenizer.token_text(tokenizer.eos_token_id or 0) == "</s>"


def test_limits_stored_in_the_file_do_not_cut_texts(folder: Path) -> None:
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(max_length=2)
    backend.enable_padding(length=9)
    backend.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.decode(tokenizer.encode("the lazy dog jumps")) == "the lazy dog jumps"


def test_the_template_of_the_configuration_is_read(folder: Path) -> None:
    assert Tokenizer.from_folder(folder).chat_template is None
    assert configure(folder, chat_template="{{ 1 }}").chat_template == "{{ 1 }}"


def test_named_templates_are_read(folder: Path) -> None:
    named = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    tokenizer = configure(folder, chat_template=named)
    assert tokenizer.chat_template == "A"
    assert tokenizer.chat_templates == {"default": "A", "tool_use": "B"}


def test_a_template_in_a_file_of_its_own_wins(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("file é", encoding="utf-8")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("rag")
    tokenizer = configure(folder, chat_template="config")
    assert tokenizer.chat_templates == {"default": "file é", "rag": "rag"}


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json in .*take the file") as caught:
        Tokenizer.from_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.model", "tekken.json", "vocab.txt"])
def test_a_tokenizer_in_another_format_comes_with_the_command_to_convert_it(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"\x0a\x0e")
    with pytest.raises(TokenizerError, match=rf"has {name}.*save_pretrained"):
        Tokenizer.from_folder(tmp_path)


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
        ("tokenizer_config.json", b'{"chat_template": [{"name": "default"}]}'),
        ("special_tokens_map.json", b"null"),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=name):
        Tokenizer.from_folder(folder)


def test_a_lone_surrogate_is_an_error_that_says_where(folder: Path) -> None:
    with pytest.raises(TokenizerError, match="character 2"):
        Tokenizer.from_folder(folder).encode("ab\ud800")


def test_a_negative_id_is_refused(folder: Path) -> None:
    with pytest.raises(TokenizerError, match="negative"):
        Tokenizer.from_folder(folder).decode([-1])


def test_many_threads_may_use_one_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    texts = [f"the fox {number} 今日は" for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(tokenizer.encode, texts))
        assert list(pool.map(tokenizer.decode, ids)) == texts
