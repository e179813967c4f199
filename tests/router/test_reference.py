"""A model reference is parsed into a provider and a name."""

import pytest

from talu.exceptions import ValidationError
from talu.router.reference import split_reference


@pytest.mark.parametrize(
    ("ref", "meant"),
    [
        ("Qwen/Qwen3-0.6B", (None, "Qwen/Qwen3-0.6B")),
        ("talu/pocket", (None, "talu/pocket")),
        ("./folder", (None, "./folder")),
        ("C:\\models\\a", (None, "C:\\models\\a")),
        ("native::talu/pocket", (None, "talu/pocket")),
        ("openai::gpt-4o", ("openai", "gpt-4o")),
        ("oaic::gpt-4o", ("openai", "gpt-4o")),
        ("openai://gpt-4o", ("openai", "gpt-4o")),
        ("ollama::llama3:8b", ("ollama", "llama3:8b")),
        ("openrouter::a/b::c", ("openrouter", "a/b::c")),
        ("./openai::x", (None, "./openai::x")),
        ("/models/a::b", (None, "/models/a::b")),
        ("../ollama::x", (None, "../ollama::x")),
        ("~/a::b", (None, "~/a::b")),
        ("models/a::b", (None, "models/a::b")),
        ("models/a://b", (None, "models/a://b")),
        ("native::./openai::x", (None, "./openai::x")),
    ],
)
def test_a_reference_is_split_into_provider_and_name(ref, meant) -> None:
    assert split_reference(ref) == meant


@pytest.mark.parametrize(
    ("ref", "match"),
    [
        ("opnai::gpt-4o", "unknown provider 'opnai::'; did you mean 'openai'"),
        ("zzz::gpt", "known are native, openai, anthropic"),
        ("s3://bucket/model", "unknown provider 's3://'"),
        ("week::day", "write ./ in front of the name of a folder"),
        ("http://localhost:8000/v1", "give it as base_url="),
        ("openai::", "names a provider but no model"),
    ],
)
def test_a_reference_with_an_unknown_provider_is_refused(ref, match) -> None:
    with pytest.raises(ValidationError, match=match) as caught:
        split_reference(ref)
    assert caught.value.code == "AMBIGUOUS_BACKEND"
