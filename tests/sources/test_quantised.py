"""Quantised folders: what their weights mean, and what the network computes with them."""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sources import quantising
from tests.sources.quantising import Floats, Result

import talu
from talu import _native, describe
from talu.client import Client
from talu.engine.cpu import CpuDevice
from talu.engine.engine import Engine
from talu.engine.loading import load_model, load_network
from talu.engine.scheduler import Limits
from talu.graph.numpy_executor import NumpyExecutor, round_to
from talu.sampling import SamplingParams
from talu.sources.folder import FolderSource
from talu.types import LocalBackend
from talu.weights import pack
from talu.weights.numbers import as_float32
from talu.weights.tensors import Tensor

POCKET = Path(talu.__file__).parent / "models" / "pocket"
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
Change = Callable[[str, Floats], Result | None]


def in_layers(quantise: Callable[..., Result], **options: Any) -> Change:
    """Quantise the linear layers, not the embeddings and the output head."""
    return lambda name, w: quantise(w, **options) if ".layers." in name else None


def everywhere(quantise: Callable[..., Result], **options: Any) -> Change:
    return lambda name, w: quantise(w, **options)


def gptq(**settings: Any) -> dict[str, Any]:
    usual = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
    return {"quantization_config": usual | settings}


def compressed(kind: str, **weights: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights}
    section = {"quant_method": "compressed-tensors", "format": kind, "ignore": ["lm_head"]}
    return {"quantization_config": section | {"config_groups": {"group_0": group}}}


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
# Settings, how each matrix is stored, and the formats in memory.
CASES: dict[str, tuple[dict[str, Any], Change, set[str]]] = {
    **{
        f"MLX, {bits} bits, groups of {size}, {kind}": (
            {"quantization": {"group_size": size, "bits": bits}},
            everywhere(quantising.mlx, bits=bits, size=size, number_type=kind),
            {f"affine{bits}_{size}_{kind.lower()}" if kind != "F32" else "i16"},
        )
        for bits, size, kind in [
            (2, 64, "F16"), (3, 64, "BF16"), (4, 32, "F16"), (4, 64, "BF16"), (4, 128, "F16"),
            (5, 64, "F16"), (6, 64, "BF16"), (8, 32, "BF16"), (8, 64, "F16"), (8, 128, "BF16"),
            (4, 64, "F32"),
        ]
    },
    "GPTQ": (gptq(), in_layers(quantising.gptq), {"zeros4_128_f16"}),
    "GPTQ, bf16": (gptq(), in_layers(quantising.gptq, number_type="BF16"), {"zeros4_128_bf16"}),
    "GPTQ, asymmetric": (
        gptq(sym=False, group_size=64), in_layers(quantising.gptq, symmetric=False, size=64),
        {"zeros4_64_f16"},
    ),
    "GPTQ, second format": (
        gptq(checkpoint_format="gptq_v2", sym=False, group_size=32),
        in_layers(quantising.gptq, symmetric=False, size=32, version=2), {"zeros4_32_f16"},
    ),
    "GPTQ, one group": (
        gptq(group_size=-1), in_layers(quantising.gptq, size=-1), {"zeros4_128_f16"},
    ),
    "GPTQ, ordered by activations": (
        gptq(desc_act=True), in_layers(quantising.gptq, shuffled=True, symmetric=False), {"i16"},
    ),
    "GPTQ, 8 bits": (gptq(bits=8), in_layers(quantising.gptq, bits=8), {"zeros8_128_f16"}),
    "GPTQ, 3 bits": (gptq(bits=3), in_layers(quantising.gptq, bits=3), {"i16"}),
    "GPTQ, 2 bits": (gptq(bits=2), in_layers(quantising.gptq, bits=2), {"i16"}),
    "AWQ": ({"quantization_config": AWQ}, in_layers(quantising.awq), {"zeros4_128_f16"}),
    "AWQ, groups of 32": (
        {"quantization_config": AWQ | {"group_size": 32}}, in_layers(quantising.awq, size=32),
        {"zeros4_32_f16"},
    ),
    "AWQ, one group": (
        {"quantization_config": AWQ | {"group_size": -1}}, in_layers(quantising.awq, size=-1),
        {"zeros4_128_f16"},
    ),
    "fp8, one scale": ({"quantization_config": FP8}, in_layers(quantising.fp8), {"i16"}),
    "fp8, a scale for each row": (
        {"quantization_config": {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}},
        in_layers(quantising.fp8, per_row=True, number_type="BF16"), {"i16"},
    ),
    "fp8, blocks": (
        {"quantization_config": FP8 | {"weight_block_size": [128, 128]}},
        in_layers(quantising.fp8, block=(128, 128), word="weight_scale_inv"), {"i16"},
    ),
    "fp8, blocks that are cut": (
        {"quantization_config": FP8 | {"weight_block_size": [96, 160]}},
        in_layers(quantising.fp8, block=(96, 160), word="weight_scale_inv"), {"i16"},
    ),
    "compressed-tensors, fp8": (
        compressed("float-quantized", num_bits=8, type="float", strategy="channel"),
        in_layers(quantising.fp8, per_row=True, number_type="BF16"), {"i16"},
    ),
    "compressed-tensors, fp8 in blocks": (
        compressed("float-quantized", num_bits=8, strategy="block", block_structure=[128, 128]),
        in_layers(quantising.fp8, block=(128, 128)), {"i16"},
    ),
    "compressed-tensors, 4 bits": (
        compressed("pack-quantized", num_bits=4, strategy="group", group_size=128),
        in_layers(quantising.packed_int), {"zeros4_128_bf16"},
    ),
    "compressed-tensors, 4 bits, asymmetric": (
        compressed("pack-quantized", num_bits=4, strategy="group", group_size=32),
        in_layers(quantising.packed_int, size=32, symmetric=False), {"zeros4_32_bf16"},
    ),
    "compressed-tensors, 4 bits, ordered by activations": (
        compressed("pack-quantized", num_bits=4, strategy="group", group_size=128),
        in_layers(quantising.packed_int, shuffled=True), {"i16"},
    ),
    "compressed-tensors, 8 bits": (
        compressed("int-quantized", num_bits=8, strategy="channel"),
        in_layers(quantising.plain_int), {"zeros8_128_bf16"},
    ),
}  # fmt: skip


def random_weights(seed: int = 5) -> dict[str, Floats]:
    random = np.random.default_rng(seed)
    head = CONFIG["hidden_size"] // CONFIG["num_attention_heads"]
    width, inner, kv = CONFIG["hidden_size"], CONFIG["intermediate_size"], 2 * head
    shapes = {"model.embed_tokens": (320, width), "lm_head": (320, width), "model.norm": (width,)}
    for layer in ("model.layers.0.", "model.layers.1."):
        shapes |= {
            f"{layer}{norm}": (width,) for norm in ("input_layernorm", "post_attention_layernorm")
        }
        shapes |= {
            f"{layer}self_attn.q_proj": (width, width), f"{layer}self_attn.k_proj": (kv, width),
            f"{layer}self_attn.v_proj": (kv, width), f"{layer}self_attn.o_proj": (width, width),
            f"{layer}mlp.gate_proj": (inner, width), f"{layer}mlp.up_proj": (inner, width),
            f"{layer}mlp.down_proj": (width, inner),
        }  # fmt: skip
    return {
        f"{name}.weight": random.normal(
            1.0 if len(shape) == 1 else 0.02, 1.5 / shape[-1] ** 0.5, shape
        ).astype(np.float32)
        for name, shape in shapes.items()
    }


def write(folder: Path, settings: Mapping[str, Any], change: Change) -> dict[str, Floats]:
    """A quantised folder; the weights that it means."""
    folder.mkdir(exist_ok=True)
    stored, means = quantising.quantise(random_weights(), change)
    (folder / "config.json").write_text(json.dumps(CONFIG | dict(settings)))
    quantising.save(folder / "model.safetensors", stored)
    return means


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Change, set[str]]:
    return CASES[request.param]


@pytest.mark.parametrize("use_mmap", [True, False], ids=["mapped", "read"])
def test_every_weight_is_the_number_that_the_definition_gives(
    use_mmap: bool, case: Any, tmp_path: Path
) -> None:
    settings, change, formats = case
    means = write(tmp_path, settings, change)
    options = LocalBackend(use_mmap=use_mmap)
    _, weights, layout = load_network(FolderSource(tmp_path), CpuDevice(options), options)
    plain = {"f32"} if change("lm_head", means["lm_head.weight"]) is None else set()
    assert {*layout.values()} == {*formats, *plain, "vector"}
    for name, packed in weights.packed.items():
        if packed.format != "vector":
            found = _native.unpack(packed.format, packed.data, *packed.shape)
            expected = round_to(means[name], "i16") if packed.format == "i16" else means[name]
            np.testing.assert_array_equal(found, expected, err_msg=name)


def logits(executor: Any, tokens: list[int]) -> Floats:
    count = len(tokens)
    found: Floats = executor.step(
        np.array(tokens, np.int32), np.arange(count, dtype=np.int32),
        np.array([0, count], np.int32), np.arange(4, dtype=np.int32)[None],
        np.arange(count, dtype=np.int32),
    )  # fmt: skip
    return np.asarray(found)


def test_the_network_computes_what_numpy_computes_with_these_weights(
    case: Any, tmp_path: Path
) -> None:
    settings, change, formats = case
    means = write(tmp_path, settings, change)
    options = LocalBackend(kv_dtype="f32")
    network, weights, layout = load_network(FolderSource(tmp_path), CpuDevice(options), options)
    native = weights.executor(network.graph, blocks=4, block_size=16, kv_dtype="f32")
    rounded = {
        name: _native.activation_format(number_format)
        for name, number_format in layout.items()
        if number_format != "vector"
    }
    tokens = list(range(40, 80))
    found = logits(native, tokens)
    # An activation between two integers can become either, which is a step of 1/127 or 1/16383. The
    # rounding of all activations is what separates the result from that of the weights alone.
    step = 4e-3 if formats != {"i16"} else 1e-3
    for activations in (rounded, {}):
        oracle = NumpyExecutor(
            network.graph, means, blocks=4, block_size=16, kv_dtype="f32",
            activation_formats=activations,
        )  # fmt: skip
        expected = logits(oracle, tokens)
        np.testing.assert_allclose(found, expected, rtol=0, atol=step * np.abs(expected).max())


def test_weights_in_the_cache_are_not_used_with_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pack, "CACHE_FROM_BYTES", 0)
    folder = tmp_path / "model"
    found = []
    for version in ("gptq", "gptq", "gptq_v2"):
        if not folder.exists():
            write(folder, gptq(), in_layers(quantising.gptq))
        (folder / "config.json").write_text(json.dumps(CONFIG | gptq(checkpoint_format=version)))
        options = LocalBackend()
        _, weights, _ = load_network(FolderSource(folder), CpuDevice(options), options)
        packed = weights.packed["model.layers.0.mlp.up_proj.weight"]
        found.append(_native.unpack(packed.format, packed.data, *packed.shape))
        assert weights.from_cache == (len(found) == 2)
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def by_depth(name: str, w: Floats) -> Result | None:
    """Eight bits in the first layer, four in the second and the head, none in the embeddings."""
    if "embed" in name:
        return None
    if ".layers.0." in name:
        return quantising.mlx(w, bits=8, size=32)
    return quantising.mlx(w, bits=4, size=64)


def test_modules_of_an_mlx_folder_have_the_bits_that_their_settings_say(tmp_path: Path) -> None:
    names = {name.removesuffix(".weight") for name in random_weights() if ".layers.0." in name}
    own = {name: {"bits": 8, "group_size": 32} for name in names if "norm" not in name}
    section = {"group_size": 64, "bits": 4, "model.embed_tokens": False, **own}
    settings = {"quantization": section, "quantization_config": section}
    means = write(tmp_path, settings, by_depth)
    assert formats_of(tmp_path, means) == {"affine8_32_f16", "affine4_64_f16", "f32"}


def test_modules_of_a_gptq_folder_can_have_other_bits_or_none(tmp_path: Path) -> None:
    def change(name: str, w: Floats) -> Result | None:
        if "down_proj" in name:
            return quantising.gptq(w, bits=8, size=64)
        return quantising.gptq(w) if ".layers.1." in name else None

    rules = {"+:.*down.*": {"bits": 8, "group_size": 64}, r"-:.*\.0\.(?!mlp\.down).*": {}}
    means = write(tmp_path, gptq(dynamic=rules), change)
    assert formats_of(tmp_path, means) == {"zeros8_64_f16", "zeros4_128_f16", "f32"}


def test_modules_that_are_not_converted_keep_their_numbers(tmp_path: Path) -> None:
    kept = "model.layers.0.self_attn.q_proj"

    def change(name: str, w: Floats) -> Result | None:
        return quantising.awq(w) if ".layers." in name and name != kept else None

    section = AWQ | {"modules_to_not_convert": [kept]}
    means = write(tmp_path, {"quantization_config": section}, change)
    assert formats_of(tmp_path, means) == {"zeros4_128_f16", "f32"}


def formats_of(folder: Path, means: Mapping[str, Floats]) -> set[str]:
    """The formats of the matrices, all of which have the numbers that they should have."""
    options = LocalBackend()
    _, weights, layout = load_network(FolderSource(folder), CpuDevice(options), options)
    for name, packed in weights.packed.items():
        if packed.format != "vector":
            found = _native.unpack(packed.format, packed.data, *packed.shape)
            np.testing.assert_array_equal(found, means[name], err_msg=name)
    return {*layout.values()} - {"vector"}


def test_stored_keeps_what_has_no_format_in_float32(tmp_path: Path) -> None:
    settings, change, _ = CASES["GPTQ, ordered by activations"]
    write(tmp_path, settings, change)
    options = LocalBackend(weight_format="stored")
    _, _, layout = load_network(FolderSource(tmp_path), CpuDevice(options), options)
    assert {*layout.values()} == {"vector", "f32"}


def quantised_pocket(folder: Path, settings: Mapping[str, Any], change: Change) -> Path:
    """The bundled model with quantised matrices."""
    shutil.copytree(POCKET, folder)
    with FolderSource(POCKET).tensors() as tensors:
        weights = {name: as_float32(tensors[name]) for name in tensors.names}
    stored, _ = quantising.quantise(weights, change)
    quantising.save(folder / "model.safetensors", stored)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | dict(settings)))
    return folder


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"quantization": {"bits": 4, "group_size": 64}}, everywhere(quantising.mlx)),
        (gptq(group_size=64), in_layers(quantising.gptq, size=64)),
        (gptq(group_size=64), in_layers(quantising.gptq, size=64, shuffled=True)),
        ({"quantization_config": FP8}, in_layers(quantising.fp8)),
    ],
    ids=["MLX", "GPTQ", "GPTQ, ordered by activations", "fp8"],
)
def test_a_request_has_the_same_tokens_alone_in_a_batch_in_chunks_and_on_any_number_of_threads(
    settings: dict[str, Any], change: Change, tmp_path: Path
) -> None:
    folder = quantised_pocket(tmp_path / "model", settings, change)
    params = SamplingParams(
        max_tokens=12, temperature=1.0, top_k=0, top_p=1.0, seed=5, top_logprobs=0
    )
    prompt = list(range(300, 350))

    def numbers(threads: int, others: int, limits: Limits | None = None) -> Any:
        model = load_model(FolderSource(folder), LocalBackend(num_threads=threads))
        with closing(Engine(model, limits)) as engine:
            for n in range(1, others + 1):
                engine.submit(prompt[n:], replace(params, seed=n))
            ticket = engine.submit(prompt, params)
            return [(each.token, each.logprob) for piece in ticket for each in piece.logprobs]

    alone = numbers(1, 0)
    assert len(alone) == 12
    assert numbers(2, 0) == alone
    assert numbers(2, 8) == alone
    assert numbers(1, 3, Limits(prefill_rows=7, prefill_rows_beside_decodes=7)) == alone


@pytest.mark.parametrize(
    ("settings", "change", "encoding", "bits"),
    [
        ({"quantization": {"bits": 4, "group_size": 64}}, everywhere(quantising.mlx),
         "AFFINE4_64_F16", 4.5),
        ({"quantization_config": FP8}, in_layers(quantising.fp8), "F8_E4M3", 8.0),
        (gptq(group_size=64), in_layers(quantising.gptq, size=64, shuffled=True),
         "ZEROS4_ACT_ORDER_F16", 4 + 24 / 64),
    ],
)  # fmt: skip
def test_a_description_names_the_encoding_and_its_bytes(
    settings: dict[str, Any], change: Change, encoding: str, bits: float, tmp_path: Path
) -> None:
    about = describe(str(quantised_pocket(tmp_path / "model", settings, change)))
    found = next(each for each in about.formats if each.name == encoding)
    assert found.tensors >= 42
    assert found.bytes * 8 / found.parameters == pytest.approx(bits, abs=0.01)
    assert about.memory is not None
    assert about.memory.weights > 0


def test_the_information_on_a_model_says_which_weights_are_stored_in_another_way(
    tmp_path: Path,
) -> None:
    settings = {"quantization_config": FP8}
    folder = quantised_pocket(tmp_path / "model", settings, in_layers(quantising.fp8))
    with Client(str(folder)) as client:
        answer = client.raw_complete("Once", max_tokens=1)
    assert any("42 matrices in F8_E4M3, which has no kernels" in note for note in answer.notes)


GOLDEN = np.load(Path(__file__).with_name("mlx.npz"))


@pytest.mark.parametrize(
    "name", [key.removesuffix(".weight") for key in GOLDEN if "_" in key and "weight" in key]
)
def test_the_numbers_are_those_of_mlx(name: str, tmp_path: Path) -> None:
    bits, size, kind = name.split("_")
    halves = {word: (kind.upper(), GOLDEN[f"{name}.{word}"]) for word in ("scales", "biases")}
    stored = {"weight": ("U32", GOLDEN[f"{name}.weight"]), **halves}
    quantising.save(tmp_path / "model.safetensors", {f"w.{n}": each for n, each in stored.items()})
    settings = {"quantization": {"bits": int(bits), "group_size": int(size)}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with FolderSource(tmp_path).tensors() as tensors:
        np.testing.assert_array_equal(computed(tensors["w.weight"]), GOLDEN[f"{name}.numbers"])
        if bits == "1":
            return  # there are no kernels
        packed = pack.load_packed(tensors, {"w.weight": f"affine{name}"})["w.weight"]
    found = _native.unpack(packed.format, packed.data, *packed.shape)
    np.testing.assert_array_equal(found, GOLDEN[f"{name}.numbers"])


def computed(tensor: Tensor) -> Floats:
    """The numbers of a matrix that executors without kernels for it read."""
    assert tensor.floats is not None
    return tensor.floats.read(0, tensor.rows).view(np.float32)


@pytest.mark.parametrize(("mode", "bits", "size"), [("mxfp8", 8, 32), ("nvfp4", 4, 16)])
def test_the_numbers_of_modes_with_floats_are_those_of_mlx(
    mode: str, bits: int, size: int, tmp_path: Path
) -> None:
    stored = {
        "w.weight": ("U32", GOLDEN[f"{mode}.weight"]),
        "w.scales": ("U8", GOLDEN[f"{mode}.scales"]),
    }
    quantising.save(tmp_path / "model.safetensors", stored)
    settings = {"quantization": {"bits": bits, "group_size": size, "mode": mode}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with FolderSource(tmp_path).tensors() as tensors:
        np.testing.assert_array_equal(computed(tensors["w.weight"]), GOLDEN[f"{mode}.numbers"])


def test_the_numbers_of_the_mode_mxfp4_are_those_of_mlx(tmp_path: Path) -> None:
    stored = {
        "w.weight": ("U32", GOLDEN["mxfp4.weight"]),
        "w.scales": ("U8", GOLDEN["mxfp4.scales"]),
    }
    quantising.save(tmp_path / "model.safetensors", stored)
    settings = {"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with FolderSource(tmp_path).tensors() as tensors:
        packed = pack.load_packed(tensors, {"w.weight": "mxfp4"})["w.weight"]
    found = _native.unpack(packed.format, packed.data, *packed.shape)
    np.testing.assert_array_equal(found, GOLDEN["mxfp4.numbers"])
