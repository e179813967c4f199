"""A repository with many GGUF files has one model for each tag, or the error says what it has."""

import pytest

from talu.exceptions import ModelError, ModelNotFoundError
from talu.sources.gguf_on_hub import GgufOnHub, models_in, quantisation
from talu.sources.resolve import split_tag

NAMES = [
    "README.md",
    "Model-7B-Q4_K_M.gguf",
    "Model-7B-Q4_K_S.gguf",
    "Model-7B.Q8_0.gguf",
    "Model-7B-UD-Q2_K_XL.gguf",
    "bf16/Model-7B-BF16-00001-of-00002.gguf",
    "bf16/Model-7B-BF16-00002-of-00002.gguf",
    "mmproj-Model-7B-f16.gguf",
    "Model-7B.imatrix.gguf",
]
BF16 = {"bf16/Model-7B-BF16-00001-of-00002.gguf", "bf16/Model-7B-BF16-00002-of-00002.gguf"}


def chosen(tag: str | None, names: list[str]) -> set[str]:
    files = GgufOnHub(tag)
    error = files.refusal("the repository org/m", names)
    if error is not None:
        raise error
    return files.weights("org/m", names, None)[0]


@pytest.mark.parametrize(
    ("tag", "files"),
    [
        ("Q4_K_M", {"Model-7B-Q4_K_M.gguf"}),
        ("q4_k_s", {"Model-7B-Q4_K_S.gguf"}),
        ("Q8_0", {"Model-7B.Q8_0.gguf"}),
        ("UD-Q2_K_XL", {"Model-7B-UD-Q2_K_XL.gguf"}),
        ("BF16", BF16),
        ("Model-7B.Q8_0.gguf", {"Model-7B.Q8_0.gguf"}),
        ("Model-7B-BF16-00002-of-00002.gguf", BF16),
        ("bf16/Model-7B-BF16-00001-of-00002.gguf", BF16),
        ("mmproj-Model-7B-f16.gguf", {"mmproj-Model-7B-f16.gguf"}),
    ],
)
def test_a_quantisation_or_a_file_name_means_one_model_with_all_its_parts(
    tag: str, files: set[str]
) -> None:
    assert chosen(tag, NAMES) == files


def test_two_models_that_match_are_both_named_with_the_way_to_name_one() -> None:
    names = [*NAMES, "Other-Q4_K_M.gguf"]
    with pytest.raises(ModelError, match="has 2 models that match 'Q4_K_M'") as caught:
        chosen("Q4_K_M", names)
    assert "'Model-7B-Q4_K_M.gguf', 'Other-Q4_K_M.gguf'" in str(caught.value)
    assert "such as :Model-7B-Q4_K_M.gguf" in str(caught.value)
    assert chosen("Other-Q4_K_M.gguf", names) == {"Other-Q4_K_M.gguf"}


@pytest.mark.parametrize("tag", ["Q5_K_M", "Q4_K", "f16", "other.gguf", "4"])
def test_a_tag_that_nothing_matches_lists_those_there_are(tag: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"org/m has no model '{tag}'") as caught:
        chosen(tag, NAMES)
    assert ":Q4_K_M, :Q4_K_S, :UD-Q2_K_XL, :Q8_0, :BF16" in str(caught.value)


def test_without_a_tag_the_default_quantisation_is_used_and_a_note_says_so() -> None:
    assert chosen(None, NAMES) == {"Model-7B-Q4_K_M.gguf"}
    note = GgufOnHub().note("org/m", NAMES)
    assert note is not None
    assert "org/m has 5 GGUF models; Model-7B-Q4_K_M.gguf is used" in note
    assert GgufOnHub("Q8_0").note("org/m", NAMES) is None
    assert GgufOnHub().note("org/m", ["Model-7B.Q8_0.gguf"]) is None


def test_without_a_tag_and_without_the_default_the_models_are_listed() -> None:
    with pytest.raises(ModelError, match="2 GGUF models, none of them in Q4_K_M") as caught:
        chosen(None, ["a-Q8_0.gguf", "b.gguf"])
    assert ":Q8_0, :b.gguf" in str(caught.value)
    many = [f"m{number}.gguf" for number in range(1000)]
    with pytest.raises(ModelError, match="and 980 more") as caught:
        chosen(None, many)
    assert len(str(caught.value)) < 1000


def test_a_missing_part_of_a_split_model_is_named() -> None:
    with pytest.raises(ModelError, match=r"has 1 of the 2 parts of bf16/Model-7B-BF16-00001"):
        chosen("BF16", [name for name in NAMES if "00002-of" not in name])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("m-UD-IQ1_S.gguf", "UD-IQ1_S"),
        ("m-F16-Q4_K_M-00001-of-00003.gguf", "Q4_K_M"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("qwen-bf16.gguf", "bf16"),
        ("vicuna.gguf", None),
    ],
)
def test_the_quantisation_is_read_from_a_name(name: str, expected: str | None) -> None:
    assert quantisation(name) == expected


def test_projectors_and_importance_matrices_are_no_models() -> None:
    assert [name for name in models_in(NAMES) if "mmproj" in name or "imatrix" in name] == []


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("org/m", ("org/m", None)),
        ("org/m:Q4_K_M", ("org/m", "Q4_K_M")),
        ("org/m:a b/c-Q8_0.gguf", ("org/m", "a b/c-Q8_0.gguf")),
        ("org/m:a:b", ("org/m", "a:b")),
        ("org/m:", None),
        ("org:m/x", None),
        ("m:Q4_K_M", None),
        ("models/m.gguf", None),
        ("org/m:" + "x" * 1001, None),
    ],
)
def test_what_follows_the_first_colon_of_a_hub_id_is_its_tag(
    ref: str, expected: tuple[str, str | None] | None
) -> None:
    assert split_tag(ref) == expected
