"""Quantised folders that are damaged, contradict their settings, or use what talu does not have."""

import json
import math
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sources import quantising
from tests.sources.test_quantised import (
    AWQ,
    CONFIG,
    FP8,
    Change,
    compressed,
    gptq,
    in_layers,
    random_weights,
)

from talu.engine.cpu import CpuDevice
from talu.engine.loading import load_network
from talu.exceptions import ModelError
from talu.sources.folder import FolderSource
from talu.types import LocalBackend

MODULE = "model.layers.0.mlp.up_proj"  # 384 rows of 256 columns
MLX = {"quantization": {"bits": 4, "group_size": 64}}
Stored = dict[str, tuple[str, Any]]
Damage = Callable[[Stored], None]


def write(folder: Path, settings: dict[str, Any], change: Change, damage: Damage) -> None:
    stored, _ = quantising.quantise(random_weights(), change)
    damage(stored)
    (folder / "config.json").write_text(json.dumps(CONFIG | settings))
    quantising.save(folder / "model.safetensors", stored)


def without(word: str) -> Damage:
    def damage(stored: Stored) -> None:
        del stored[f"{MODULE}.{word}"]

    return damage


def replaced(word: str, number_type: str, numbers: Any) -> Damage:
    return lambda stored: stored.update({f"{MODULE}.{word}": (number_type, numbers)})


def group_index(column: int, group: int) -> Damage:
    def damage(stored: Stored) -> None:
        stored[f"{MODULE}.g_idx"][1][column] = group

    return damage


def sound(stored: Stored) -> None:
    """No damage."""


mlx, of_gptq = in_layers(quantising.mlx), in_layers(quantising.gptq)
awq, fp8 = in_layers(quantising.awq), in_layers(quantising.fp8)
packed = in_layers(quantising.packed_int)
BLOCKED = {"quantization_config": FP8 | {"weight_block_size": [128, 128]}}
PACKED = compressed("pack-quantized")
F16 = np.float16
CASES: dict[str, tuple[dict[str, Any], Change, Damage, str]] = {
    "MLX, scales are missing": (MLX, mlx, without("scales"), "no tensor 'scales'"),
    "MLX, minimums are missing": (MLX, mlx, without("biases"), "no tensor 'biases'"),
    "MLX, codes are missing": (MLX, mlx, without("weight"), "no tensor 'weight'"),
    "MLX, scales of another shape": (
        MLX, mlx, replaced("scales", "F16", np.ones((384, 3), F16)),
        r"4 bits in groups of 64: that needs scales of shape \(384, 4\), found \(384, 3\)",
    ),
    "MLX, scales that are integers": (
        MLX, mlx, replaced("scales", "I32", np.ones((384, 4), "i4")), "has type I32, expected F16",
    ),
    "MLX, minimums of another type": (
        MLX, mlx, replaced("biases", "F32", np.ones((384, 4), "f4")), "has type F32, expected F16",
    ),
    "MLX, a scale of the whole matrix": (
        MLX, mlx, replaced("global_scale", "F32", np.ones(1, "f4")), "'global_scale'",
    ),
    "MLX, codes that are signed": (
        MLX, mlx, replaced("weight", "I32", np.ones((384, 32), "i4")), "expected U32",
    ),
    "MLX, other bits than the settings say": (
        {"quantization": {"bits": 8, "group_size": 64}}, mlx, sound,
        "config.json says 8 bits in groups of 64",
    ),
    "MLX, a group that does not divide a row": (
        {"quantization": {"bits": 5, "group_size": 64}}, mlx, sound,
        "a row would not be a whole number of groups",
    ),
    "MLX, 7 bits": (
        {"quantization": {"bits": 7, "group_size": 64}}, mlx, sound,
        "'quantization.bits' is 7; supported are 1, 2, 3, 4, 5, 6, 8",
    ),
    "MLX, groups of 48": (
        {"quantization": {"bits": 4, "group_size": 48}}, mlx, sound,
        "'quantization.group_size' is 48; supported are 32, 64, 128",
    ),
    "MLX, another mode": (
        {"quantization": {"bits": 4, "group_size": 32, "mode": "nvfp5"}}, mlx, sound,
        r"'quantization.mode' is 'nvfp5'; did you mean 'nvfp4'",
    ),
    "MLX, floats of 8 bits": (
        {"quantization": {"bits": 8, "group_size": 32, "mode": "mxfp4"}}, mlx, sound,
        "'quantization.bits' is 8; supported are 4",
    ),
    "MLX, floats with the scales of integers": (
        {"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}, mlx, sound,
        "has type F16, expected U8",
    ),
    "MLX, bits of a module": (
        {"quantization": {"bits": 4, "group_size": 64, MODULE: {"bits": 9}}}, mlx, sound,
        r"up_proj.bits' is 9",
    ),
    "MLX, a setting of an unknown kind": (
        {"quantization": {"bits": 4, "group_size": 64, "rotation": 8}}, mlx, sound,
        "'quantization.rotation' must be an object with group_size and bits",
    ),
    "MLX, a module that should not be quantised": (
        {"quantization": {"bits": 4, "group_size": 64, MODULE: False}}, mlx, sound,
        r"up_proj' is false, but the weights of this module are quantised",
    ),
    "MLX and another method": (
        MLX | gptq(), mlx, sound, "'quantization_config' names another method than 'quantization'",
    ),
    "GPTQ, scales are missing": (gptq(), of_gptq, without("scales"), "no tensor 'scales'"),
    "GPTQ, zero points are missing": (gptq(), of_gptq, without("qzeros"), "no tensor 'qzeros'"),
    "GPTQ, codes are missing": (gptq(), of_gptq, without("qweight"), "no tensor 'qweight'"),
    "GPTQ, zero points of another shape": (
        gptq(), of_gptq, replaced("qzeros", "I32", np.zeros((2, 47), "i4")),
        r"shape \(2, 47\), which does not match scales of shape \(2, 384\)",
    ),
    "GPTQ, codes of another shape": (
        gptq(), of_gptq, replaced("qweight", "I32", np.zeros((32, 376), "i4")),
        r"shape \(32, 376\), which does not match scales of shape \(2, 384\) and 4 bits",
    ),
    "GPTQ, a group that is too large": (
        gptq(), of_gptq, group_index(17, 2), "names groups from 0 to 2; the module has 2, from 0",
    ),
    "GPTQ, a negative group": (gptq(), of_gptq, group_index(17, -1), "names groups from -1 to 1"),
    "GPTQ, an order of another length": (
        gptq(), of_gptq, replaced("g_idx", "I32", np.zeros(255, "i4")), r"expected \(256,\)",
    ),
    "GPTQ, an order of floats": (
        gptq(), of_gptq, replaced("g_idx", "F32", np.zeros(256, "f4")), "expected I32",
    ),
    "GPTQ, other bits than the settings say": (
        gptq(bits=8), of_gptq, sound, "has 4 bits in groups of 128 columns; config.json has other",
    ),
    "GPTQ, other groups than the settings say": (
        gptq(group_size=64), of_gptq, sound, "has other numbers: 4 bits in groups of 64",
    ),
    "GPTQ, groups that are not equal": (
        gptq(),
        in_layers(lambda w: (
            {"qweight": ("I32", np.zeros((32, len(w)), "i4")),
             "qzeros": ("I32", np.zeros((3, len(w) // 8), "i4")),
             "scales": ("F16", np.zeros((3, len(w)), F16))}, w)),
        sound, "3 groups for 256 columns",
    ),
    "GPTQ, 5 bits": (gptq(bits=5), of_gptq, sound, r"bits' is 5; supported are 2, 3, 4, 8"),
    "GPTQ, another format": (
        gptq(checkpoint_format="marlin"), of_gptq, sound, "'marlin'.*supported: 'gptq', 'gptq_v2'",
    ),
    "GPTQ, repacked": (
        gptq(is_marlin_format=True), of_gptq, sound, "only the format of GPTQ is supported",
    ),
    "GPTQ, rules that are no object": (
        gptq(dynamic=[1]), of_gptq, sound, "'quantization_config.dynamic' must be an object",
    ),
    "AWQ, zero points of another shape": (
        {"quantization_config": AWQ}, awq, replaced("qzeros", "I32", np.zeros((2, 47), "i4")),
        r"has shape \(2, 47\), expected \(2, 48\)",
    ),
    "AWQ, scales are missing": (
        {"quantization_config": AWQ}, awq, without("scales"), "no tensor 'scales'",
    ),
    "AWQ, a group that does not divide a row": (
        {"quantization_config": AWQ | {"group_size": 100}}, awq, sound,
        "has 384 columns, which are no whole number of groups of 100",
    ),
    "AWQ, 3 bits": (
        {"quantization_config": AWQ | {"bits": 3}}, awq, sound, "bits' is 3; supported is 4",
    ),
    "AWQ, another version": (
        {"quantization_config": AWQ | {"version": "gemv"}}, awq, sound, "'gemv'.*supported: 'gemm'",
    ),
    "AWQ, a module that should not be quantised": (
        {"quantization_config": AWQ | {"modules_to_not_convert": [MODULE]}}, awq, sound,
        f"'{MODULE}' is named as not quantised in config.json",
    ),
    "AWQ, no list of modules": (
        {"quantization_config": AWQ | {"modules_to_not_convert": "lm_head"}}, awq, sound,
        "must be a list of names, got 'lm_head'",
    ),
    "fp8, the scale is missing": (
        {"quantization_config": FP8}, fp8, without("weight_scale"), "no tensor 'weight_scale_inv'",
    ),
    "fp8, scales of another shape": (
        {"quantization_config": FP8}, fp8, replaced("weight_scale", "F32", np.ones((3, 2), "f4")),
        r"shape \(3, 2\), but scales a matrix of shape \(384, 256\) as a whole, or each row",
    ),
    "fp8, blocks of another shape": (
        BLOCKED, fp8, sound, r"has shape \(\), but scales a matrix .* in blocks of 128 x 128",
    ),
    "fp8, scales that are integers": (
        {"quantization_config": FP8}, fp8, replaced("weight_scale", "I32", np.ones(1, "i4")),
        "has type I32, expected F16 or BF16 or F32 or F8_E8M0",
    ),
    "fp8, more exponent": (
        {"quantization_config": FP8}, fp8,
        replaced("weight", "F8_E5M2", np.zeros((384, 256), "u1")), "F8_E5M2, expected F8_E4M3",
    ),
    "fp8, a block of three sizes": (
        {"quantization_config": FP8 | {"weight_block_size": [1, 2, 3]}}, fp8, sound,
        r"must be \[rows, columns\] of a block",
    ),
    "compressed-tensors, the shape is missing": (
        PACKED, packed, without("weight_shape"), "no tensor 'weight_shape'",
    ),
    "compressed-tensors, another shape": (
        PACKED, packed, replaced("weight_shape", "I64", np.array([384, 1 << 60])),
        r"does not hold a matrix of shape \(384, 1152921504606846976\) in 4 or 8 bits",
    ),
    "compressed-tensors, scales of another shape": (
        PACKED, packed, replaced("weight_scale", "BF16", np.zeros((384, 3), "u2")),
        r"shape \(384, 3\), but scales a matrix of shape \(384, 256\)",
    ),
    "compressed-tensors, another format": (
        compressed("nvfp4-pack-quantized"), packed, sound, "'nvfp4-pack-quantized'",
    ),
    "no settings for GPTQ": ({}, of_gptq, sound, r"are quantised, but config.json has no quant"),
    "no settings for MLX": ({}, mlx, sound, r"are quantised, but config.json has no quant"),
    "no settings for fp8": ({}, fp8, sound, r"are quantised, but config.json has no quant"),
    **{
        f"a method that is not supported: {name}": (
            {"quantization_config": {"quant_method": name}}, mlx, sound,
            f"is '{name}', which is not supported: talu opens the methods 'gptq', 'awq'.*GGUF",
        )
        for name in ("bitsandbytes", "hqq", "aqlm", "torchao", "quanto", "mxfp4", "auto-round")
    },
    "a method without a name": (
        {"quantization_config": {"load_in_8bit": True}}, mlx, sound, "quant_method' is missing",
    ),
    "a method that is a number": (
        {"quantization_config": {"quant_method": 4}}, mlx, sound, "is 4, which is not supported",
    ),
    "settings that are a list": (
        {"quantization_config": [1]}, mlx, sound, "'quantization_config' must be an object",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    given_settings, change, damage, message = CASES[name]
    write(tmp_path, given_settings, change, damage)
    options = LocalBackend()
    with pytest.raises(ModelError, match=message):
        load_network(FolderSource(tmp_path), CpuDevice(options), options)


@pytest.mark.parametrize("key", ["sparsity_config", "transform_config"])
def test_compressed_tensors_that_need_another_network_are_refused(key: str, tmp_path: Path) -> None:
    settings = compressed("pack-quantized")
    settings["quantization_config"][key] = {"format": "sparse-24-bitmask"}
    write(tmp_path, settings, packed, sound)
    with pytest.raises(ModelError, match=rf"'quantization_config.{key}' is not supported"):
        FolderSource(tmp_path).settings()


def test_a_group_size_of_0_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"quantization_config": AWQ | {"group_size": 0}}, awq, sound)
    with pytest.raises(ModelError, match="group_size' is 0"):
        FolderSource(tmp_path).settings()


def test_a_zero_point_that_no_byte_can_hold_is_refused(tmp_path: Path) -> None:
    change = in_layers(quantising.gptq, bits=8)
    full = replaced("qzeros", "I32", np.full((2, 96), -1, "i4"))
    write(tmp_path, gptq(bits=8), change, full)
    options = LocalBackend()
    with pytest.raises(ModelError, match="has a zero point of 256"):
        load_network(FolderSource(tmp_path), CpuDevice(options), options)


ONE = np.random.default_rng(2).standard_normal((64, 128)).astype(np.float32)
METHODS: dict[str, tuple[dict[str, Any], Stored]] = {
    "mlx": (MLX, quantising.mlx(ONE)[0]),
    "gptq": (gptq(), quantising.gptq(ONE, shuffled=True)[0]),
    "awq": ({"quantization_config": AWQ}, quantising.awq(ONE)[0]),
    "fp8": (BLOCKED, quantising.fp8(ONE, block=(128, 128))[0]),
    "packed": (PACKED, quantising.packed_int(ONE, symmetric=False)[0]),
    "int": (compressed("int-quantized"), quantising.plain_int(ONE)[0]),
}
TYPES = {
    "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E8M0": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4,
    "U32": 4, "I64": 8, "F64": 8, "BOOL": 1, "C64": 8,
}  # fmt: skip
values = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4)
)
settings_values = st.recursive(
    values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_any_change_of_tensors_and_settings_is_read_or_refused(data: st.DataObject) -> None:
    config, stored = (dict(each) for each in METHODS[data.draw(st.sampled_from(sorted(METHODS)))])
    key = next(iter(config))
    section = dict(config[key])
    for _ in range(data.draw(st.integers(0, 2))):
        name = data.draw(st.sampled_from([*section, "ignore", "dynamic"]))
        section[name] = data.draw(settings_values)
    for word in data.draw(st.lists(st.sampled_from(sorted(stored)), max_size=2, unique=True)):
        number_type, numbers = stored.pop(word)
        if data.draw(st.booleans()):
            number_type = data.draw(st.sampled_from(sorted(TYPES)))
            size = TYPES[number_type]
            count = numbers.nbytes // size
            shape = data.draw(
                st.sampled_from([(count,), (1, count), (count, 1), (count // 4, 4), (1,), (0, 3)])
            )
            needed = size * math.prod(shape)
            content = numbers.tobytes().ljust(needed, b"\1")[:needed]
            raw = np.frombuffer(content, f"V{size}")
            stored[word] = (number_type, raw.reshape(shape))
    named = {f"w.{word}": each for word, each in stored.items()}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "config.json").write_text(json.dumps({key: section}))
        quantising.save(folder / "model.safetensors", named)
        with suppress(ModelError), FolderSource(folder).tensors() as tensors:
            for each in tensors.names:
                found = tensors[each]
                for part in [*found.parts.values(), *([found.floats] if found.floats else [])]:
                    assert part.read(0, part.count).shape == (part.count, part.width)
