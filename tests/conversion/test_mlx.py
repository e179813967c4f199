"""An MLX folder is the same model: for mlx-lm, and when it is opened again."""

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tests.conversion.mlx_models import (
    ANSWERS,
    CASES,
    FAMILIES,
    GOLDEN,
    POCKET,
    PROMPT,
    TOKENIZERS,
    converted,
    digest,
    make,
    texts,
    tokenizer_folder,
    vocabulary,
)
from tests.gguf.test_gemma import CHANGES, computed
from tests.gguf.test_gemma import write as write_gemma
from tests.models.conftest import Runner
from tests.sources.test_gguf import write

from talu import _native, describe
from talu.client import Client
from talu.conversion.tokenizer_files import tokenizer_files
from talu.engine import calibration
from talu.engine.cpu import CpuDevice
from talu.engine.loading import load_network
from talu.exceptions import ConvertError, ModelError
from talu.graph.numpy_executor import NumpyExecutor
from talu.graph.record import Graph
from talu.models import load_architecture
from talu.router.conversion import convert
from talu.sources.folder import FolderSource
from talu.sources.gguf import GgufSource
from talu.types import LocalBackend
from talu.weights.numbers import as_float32
from talu.weights.safetensors_writer import SafetensorsWriter
from talu.weights.tensors import Tensor

ERRORS = {  # of logits; otherwise 2e-4, for sums in float32 in another order
    "gemma": 5e-2,  # mlx-lm computes GELU without the approximation
    "gemma2": 1e-3,  # it does not round the factor of the embeddings
}
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "ask.md"
CLOSE = 1e-3  # margins that may be decided otherwise


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Originals and converted models, made once."""
    place = tmp_path_factory.mktemp("mlx")
    yield place
    shutil.rmtree(place)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that a test may change."""
    return make(tmp_path / "original", "qwen3")


def made_once(work: Path, family: str, target: str) -> Path:
    made = work / f"{family} {target}"
    return made if made.exists() else converted(work, family, target)


def edit(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(model: Path, to: Path) -> str:
    with pytest.raises(ConvertError) as caught:
        convert(model, to="mlx-bf16", output=to)
    assert caught.value.code == "CONVERT_UNSUPPORTED_FORMAT"
    assert not to.exists()
    return str(caught.value)


def numbers(folder: Path) -> dict[str, NDArray[np.float32]]:
    """All tensors in float32, as the files define them."""
    with FolderSource(folder).tensors() as tensors:
        return {name: exact(tensors[name]) for name in tensors.names}


def exact(tensor: Tensor) -> NDArray[np.float32]:
    if tensor.floats is None:
        return as_float32(tensor)
    return tensor.floats.read(0, tensor.rows).view(np.float32).reshape(tensor.shape)


def run(folder: Path) -> Runner:
    """The model, computed in float32."""
    graph = load_architecture(FolderSource(folder)).graph
    return Runner(
        NumpyExecutor(graph, numbers(folder), blocks=16, block_size=16, kv_dtype="f32"), 16
    )


def described(graph: Graph) -> list[Any]:
    """A network in values that can be compared."""
    return [
        (op.kind, op.inputs, op.weights, op.width, {k: np.asarray(v).tolist() for k, v in p})
        for op in graph.ops
        for p in [op.params.items()]
    ]


@pytest.mark.parametrize(("family", "target"), CASES)
def test_mlx_lm_computes_the_same_model(work: Path, family: str, target: str) -> None:
    answer = json.loads(ANSWERS.read_text())["models"][f"{family} {target}"]
    made = made_once(work, family, target)
    assert digest(made) == answer["converted"], "run python -m tests.conversion.mlx_models PYTHON"
    logits = run(made)(PROMPT)[-1, : len(answer["logits"])]
    np.testing.assert_allclose(logits, answer["logits"], rtol=0, atol=ERRORS.get(family, 2e-4))
    tokens = run(made).greedy(PROMPT, len(answer["tokens"]))
    close = [margin < CLOSE for margin in answer["margins"]]
    sure = close.index(True) if any(close) else len(close)
    assert tokens[:sure] == answer["tokens"][:sure]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_converted_folder_is_the_same_network_with_the_same_numbers(
    work: Path, family: str
) -> None:
    made = made_once(work, family, "mlx-bf16")
    before, after = FolderSource(work / family), FolderSource(made)
    old, new = load_architecture(before), load_architecture(after)
    assert described(old.graph) == described(new.graph)
    assert new.notes == old.notes
    assert new.end_token_ids == old.end_token_ids
    originals, found = numbers(work / family), numbers(made)
    assert found.keys() == originals.keys()
    for name, array in originals.items():
        np.testing.assert_array_equal(found[name], array)


def test_the_bundled_model_answers_as_before(work: Path) -> None:
    made = convert("talu/pocket", to="mlx-bf16", output=work / "pocket")
    assert made.notes == ()
    with Client(str(made.path)) as ours, Client("talu/pocket") as theirs:
        question = "What is the capital of France?"
        assert ours.ask(question, temperature=0.0) == theirs.ask(question, temperature=0.0)
    shutil.rmtree(made.path)


def test_other_files_are_copied_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    (folder / "LICENSE").write_text("Do as you like.")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "short.jinja").write_text("{{ messages }}")
    (folder / "training.log").write_text("not a part of the model")
    made = convert(folder, to="mlx-bf16", output=tmp_path / "made")
    names = {p.relative_to(made.path).as_posix() for p in made.path.rglob("*") if p.is_file()}
    copied = {
        *("LICENSE", "additional_chat_templates/short.jinja", "generation_config.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    assert names == copied | {"config.json", "model.safetensors"}
    for name in copied:
        assert (made.path / name).read_bytes() == (folder / name).read_bytes()
    assert made.bytes == sum((made.path / name).stat().st_size for name in names)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a key")
    (folder / "LICENSE").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="LICENSE is a link to a file outside"):
        convert(folder, to="mlx-bf16", output=tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_links_into_the_cache_of_the_hub_are_followed(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    snapshot, blobs = repository / "snapshots" / "abc", repository / "blobs"
    snapshot.parent.mkdir(parents=True)
    blobs.mkdir()
    make(snapshot, "qwen3")
    for number, path in enumerate([*snapshot.iterdir()]):
        path.rename(blobs / str(number))
        path.symlink_to(f"../../blobs/{number}")
    made = convert(snapshot, to="mlx-bf16", output=tmp_path / "made").path
    assert not any(path.is_symlink() for path in made.iterdir())
    assert (made / "tokenizer.json").read_bytes() == (POCKET / "tokenizer.json").read_bytes()


def test_a_file_far_too_large_is_refused(folder: Path, tmp_path: Path) -> None:
    with (folder / "README.md").open("wb") as file:
        file.truncate(2**28 + 1)
    with pytest.raises(ModelError, match=r"README\.md has more than 268,435,456 bytes"):
        convert(folder, to="mlx-bf16", output=tmp_path / "made")


def test_settings_that_run_code_in_mlx_lm_are_left_out(folder: Path, tmp_path: Path) -> None:
    edit(folder, model_file="evil.py", auto_map={"AutoModel": "evil.Model"}, rope_traditional=True)
    made = convert(folder, to="mlx-bf16", output=tmp_path / "made").path
    config = json.loads((made / "config.json").read_text())
    assert not {"model_file", "auto_map", "rope_traditional"} & config.keys()


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "biases": ("qwen3", {"attention_bias": True}, "biases in k_proj, o_proj, q_proj, v_proj"),
    "activation": ("llama2", {"hidden_act": "gelu"}, "activation is 'gelu' instead of 'silu'"),
    "head": ("gemma2", {"tie_word_embeddings": False}, "output head of the model is not"),
    "heads": ("qwen2", {"head_dim": 16}, "heads of the model have 16 columns"),
    "no limits": ("gemma2", {"final_logit_softcapping": None}, "does not limit"),
    "limits": ("gemma3", {"final_logit_softcapping": 30.0}, "limits its scores or logits"),
    "windows": ("gemma3", {"layer_types": ["sliding_attention"] * 2}, "do not repeat"),
    "rotation": (
        "gemma", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_parameters": None},
        "does not scale the frequencies",
    ),
    "no generation": ("qwen3", {"is_causal": False}, "does not generate text"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_network_that_mlx_lm_lacks_is_refused(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, changes, message = REFUSED[case]
    checkpoint, usual = FAMILIES[family]
    monkeypatch.setitem(FAMILIES, family, (checkpoint, usual | changes))  # type: ignore[misc]
    found = refusal(make(tmp_path / "original", family), tmp_path / "made")
    assert found.startswith("mlx-lm cannot run 'original': ")
    assert message in found


def test_an_encoder_is_refused_with_the_model_types_that_mlx_lm_has(tmp_path: Path) -> None:
    message = refusal(GOLDEN / "bert", tmp_path / "made")
    assert "does not have the model type 'bert'" in message
    assert "'gemma3_text'" in message


def test_layers_with_a_window_that_mlx_lm_ignores_are_a_note(folder: Path, tmp_path: Path) -> None:
    edit(folder, use_sliding_window=True, sliding_window=16, max_window_layers=1, layer_types=None)
    (note,) = convert(folder, to="mlx-bf16", output=tmp_path / "made").notes
    assert note == (
        "mlx-lm lets every layer attend to all positions, so its answers differ from those of the "
        "model after 16 tokens"
    )


def test_the_gelu_of_the_first_gemma_and_lost_digits_are_notes(work: Path, tmp_path: Path) -> None:
    if not (work / "gemma").exists():
        make(work / "gemma", "gemma")
    gelu, digits = convert(work / "gemma", to="mlx-f16", output=tmp_path / "made").notes
    assert "mlx-lm computes GELU exactly" in gelu
    assert digits == "weights of the type BF16 are rounded to F16"


def test_every_type_of_weights_that_is_rounded_is_in_the_note(tmp_path: Path) -> None:
    shutil.copytree(POCKET, tmp_path / "mixed")
    with FolderSource(POCKET).tensors() as stored:
        arrays = {name: as_float32(stored[name]) for name in stored.names}
    norms = {name: array for name, array in arrays.items() if array.ndim == 1}
    halves = {n: a.astype(np.float16) for n, a in arrays.items() if a.ndim == 2}
    save_file(norms | halves, tmp_path / "mixed" / "model.safetensors")
    for to, note in (
        ("mlx-bf16", "weights of the types F16, F32 are rounded to BF16"),
        ("mlx-f16", "weights of the type F32 are rounded to F16"),
        ("mlx-8bit", "weights that are not quantised of the type F32 are rounded to F16"),
    ):
        assert convert(tmp_path / "mixed", to=to, output=tmp_path / to).notes == (note,)


def test_the_licence_in_a_gguf_file_is_in_the_model_card(tmp_path: Path) -> None:
    original = tmp_path / "original.gguf"
    shutil.copytree(POCKET, tmp_path / "pocket")
    (tmp_path / "pocket" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    convert(tmp_path / "pocket", to="bf16", output=original)
    made = convert(original, to="mlx-bf16", output=tmp_path / "made").path
    assert FolderSource(made).licence() == describe(original).licence == "apache-2.0"


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_codes_are_close_to_the_weights_for_their_bits(work: Path, bits: int) -> None:
    made = made_once(work, "qwen3", f"mlx-{bits}bit")
    originals, found = numbers(work / "qwen3"), numbers(made)
    for name, array in originals.items():
        if array.ndim == 1:
            np.testing.assert_array_equal(found[name], array)
            continue
        spread = (array.max() - array.min()) / (2**bits - 1)  # of uniform weights in a group
        error = np.sqrt(np.mean((found[name] - array) ** 2))
        assert error < 1.05 * spread / np.sqrt(12) + 1e-3


def test_sample_texts_bring_quantised_weights_closer_to_the_model(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MOST", 1024)
    with Client("talu/pocket") as client:
        ids = client.tokenize(GUIDE.read_text())[:200]
    without_texts = made_once(work, "pocket", "mlx-3bit")
    with_texts = convert("talu/pocket", to="mlx-3bit", output=tmp_path / "made").path
    right, one, other = (
        x - np.logaddexp.reduce(x, axis=1, keepdims=True)
        for x in (run(folder)(ids) for folder in (POCKET, without_texts, with_texts))
    )
    plain, chosen = (float((np.exp(right) * (right - q)).sum(axis=1).mean()) for q in (one, other))
    assert chosen < 0.85 * plain


def test_the_dequantised_numbers_are_those_that_the_engine_multiplies(work: Path) -> None:
    made = made_once(work, "pocket", "mlx-4bit")
    found = numbers(made)
    options = LocalBackend()
    _, weights, _ = load_network(FolderSource(made), CpuDevice(options), options)
    for name, packed in weights.packed.items():
        if packed.format != "vector":
            assert packed.format == "affine4_64_bf16"
            unpacked = _native.unpack(packed.format, packed.data, *packed.shape)
            np.testing.assert_array_equal(unpacked, found[name])


def test_a_quantised_model_is_opened_without_a_note(work: Path) -> None:
    made = made_once(work, "pocket", "mlx-4bit")
    with Client(str(made)) as client:
        answer = client.chat().send("What is the capital of France?", temperature=0.0)
    assert "Paris" in answer.text
    assert answer.notes == ()
    assert describe(str(made)).bits_per_weight == pytest.approx(4.5, abs=0.02)


def test_quantised_weights_are_not_quantised_again(work: Path, tmp_path: Path) -> None:
    made = made_once(work, "pocket", "mlx-4bit")
    with pytest.raises(ConvertError, match="AFFINE4_64_BF16") as caught:
        convert(made, to="mlx-8bit", output=tmp_path / "made")
    assert caught.value.code == "CONVERT_ALREADY_QUANTIZED"


def test_matrices_whose_rows_are_no_whole_number_of_groups_are_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "qwen3", ("qwen3_tied", {"intermediate_size": 200}))  # type: ignore[misc]
    model = make(tmp_path / "original", "qwen3")
    made = convert(model, to="mlx-4bit", output=tmp_path / "made")
    assert made.notes == (
        "2 matrices are stored in BF16, such as 'model.layers.0.mlp.down_proj.weight': their "
        "columns are not a multiple of 64",
    )
    with FolderSource(made.path).tensors() as tensors:
        assert tensors["model.layers.1.mlp.down_proj.weight"].encoding.name == "BF16"
        assert tensors["model.layers.1.mlp.up_proj.weight"].encoding.name == "AFFINE4_64_BF16"


def test_a_model_without_a_matrix_that_can_be_quantised_is_refused(tmp_path: Path) -> None:
    original = tmp_path / "original.gguf"
    write(GOLDEN / "qwen3", original, "qwen3", tokenizer="llama")
    with pytest.raises(ConvertError, match="no matrix of 'original' can be quantised to mlx-4bit"):
        convert(original, to="mlx-4bit", output=tmp_path / "made")


def test_scales_are_f16_if_the_weights_are(work: Path, tmp_path: Path) -> None:
    halves = made_once(work, "llama2", "mlx-f16")
    made = convert(halves, to="mlx-4bit", output=tmp_path / "made").path
    with FolderSource(made).tensors() as tensors:
        kinds = {tensors[name].encoding.name for name in tensors.names}
    assert kinds == {"AFFINE4_64_F16", "F16"}


@pytest.mark.parametrize(("name", "architecture"), [("llama2", "llama"), ("qwen3", "qwen3")])
def test_a_gguf_file_becomes_the_folder_of_the_same_model(
    name: str, architecture: str, tmp_path: Path
) -> None:
    original = tmp_path / "original.gguf"
    write(GOLDEN / name, original, architecture, tokenizer="llama")
    made = convert(original, to="mlx-f16", output=tmp_path / "made").path
    before, after = load_architecture(GgufSource(original)), load_architecture(FolderSource(made))
    assert described(before.graph) == described(after.graph)
    assert after.end_token_ids == before.end_token_ids
    assert after.notes == ()
    originals, found = numbers(GOLDEN / name), numbers(made)
    assert found.keys() == originals.keys()
    for each, array in originals.items():
        np.testing.assert_array_equal(found[each], array)


@pytest.mark.parametrize("name", ["gemma", "gemma3"])
def test_1_is_subtracted_from_the_norms_of_a_gemma_in_a_gguf_file(
    name: str, tmp_path: Path
) -> None:
    config = json.loads((GOLDEN / name / "config.json").read_text()) | CHANGES[name]
    with FolderSource(GOLDEN / name).tensors() as stored:
        tensors = {each: as_float32(stored[each]) for each in stored.names}
    original = tmp_path / "original.gguf"
    write_gemma(config, tensors, original, name, tokenizer="llama")
    made = convert(original, to="mlx-bf16", output=tmp_path / "made").path
    before, after = load_architecture(GgufSource(original)), load_architecture(FolderSource(made))
    assert computed(before, offset=False) == computed(after, offset=False)
    assert {op.params.get("offset", 1.0) for op in after.graph.ops} == {1.0}
    found = numbers(made)
    assert found.keys() == tensors.keys()
    for each, array in tensors.items():
        np.testing.assert_array_equal(found[each], array)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_tokenizer_of_a_gguf_file_is_the_same_in_a_folder_and_in_transformers(
    name: str, tmp_path: Path
) -> None:
    source = GgufSource(vocabulary(name))
    folder = tokenizer_folder(tmp_path / name, name)
    before, after = source.tokenizer(), FolderSource(folder).tokenizer()
    ids = [before.backend.encode(text).ids for text in texts()]
    assert [after.backend.encode(text).ids for text in texts()] == ids
    recorded = json.loads(ANSWERS.read_text())["tokenizers"][name]
    assert hashlib.sha256(json.dumps(ids).encode()).hexdigest() == recorded
    assert after.names == before.names
    assert after.notes == ()
    assert FolderSource(folder).chat_templates() == source.chat_templates()


def test_several_templates_of_a_gguf_file_are_kept(tmp_path: Path) -> None:
    original = tmp_path / "original.gguf"
    templates = {"default": "{{ messages }}", "tools": "{{ tools }}", "../../x": "{{ a }}"}
    write(GOLDEN / "qwen3", original, "qwen3", tokenizer="llama", templates=templates)
    made = convert(original, to="mlx-f16", output=tmp_path / "made").path
    assert FolderSource(made).chat_templates() == templates


def test_the_tokenizer_class_of_transformers_that_changes_qwen_is_a_note(tmp_path: Path) -> None:
    source = GgufSource(vocabulary("qwen2"))
    _, (note,) = tokenizer_files(source, "qwen2", 2048)
    assert "the normalizer (none) by NFC" in note


@pytest.mark.parametrize(
    ("call", "number", "message"),
    [
        ("pwrite", errno.EIO, "Input/output error"),
        ("posix_fallocate", errno.ENOSPC, "no space is left"),
    ],
)
def test_a_failed_write_leaves_nothing(
    call: str, number: int, message: str, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def failed(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.setattr(os, call, failed)
    with pytest.raises(ConvertError, match=f"cannot be written: {message}"):
        convert(folder, to="mlx-bf16", output=place / "made")
    assert [*place.iterdir()] == []


def test_an_interruption_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.setattr(SafetensorsWriter, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(folder, to="mlx-4bit", output=place / "made")
    assert [*place.iterdir()] == []


def test_an_existing_folder_is_kept_unless_it_is_to_be_replaced(
    folder: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    convert(folder, to="mlx-bf16", output=made)
    (made / "README.md").write_text("mine")
    with pytest.raises(ConvertError, match="exists already"):
        convert(folder, to="mlx-bf16", output=made)
    assert (made / "README.md").read_text() == "mine"
    convert(folder, to="mlx-f16", output=made, force=True)
    assert not (made / "README.md").exists()


def test_files_have_the_permissions_of_new_files(folder: Path, tmp_path: Path) -> None:
    made = convert(folder, to="mlx-bf16", output=tmp_path / "made").path
    (tmp_path / "new").write_text("")
    usual = stat.S_IMODE((tmp_path / "new").stat().st_mode)
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()} == {usual}
