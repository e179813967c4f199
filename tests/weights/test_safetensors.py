import json
import os
import re
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from talu.exceptions import ModelError
from talu.weights.safetensors import MAX_JSON_BYTES, SafetensorsFile

MAPPED = pytest.mark.parametrize("use_mmap", [True, False], ids=["mapped", "read"])


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@MAPPED
def test_files_of_the_reference_implementation_are_read_exactly(
    tmp_path: Path, use_mmap: bool
) -> None:
    random = np.random.default_rng(1)
    arrays = {
        "matrix": random.standard_normal((5, 3), np.float32),
        "half": random.standard_normal(7).astype(np.float16),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})
    file = SafetensorsFile(path, use_mmap=use_mmap)
    assert set(file.tensors) == set(arrays)
    for name, expected in arrays.items():
        found = file.tensor(name).array()
        as_bits = expected.view(np.uint16) if expected.dtype == np.float16 else expected
        assert found.shape == expected.shape
        assert np.array_equal(found, as_bits)


@MAPPED
def test_bf16_is_returned_as_raw_bits(write_file: Callable[..., Path], use_mmap: bool) -> None:
    bits = np.array([0x3F80, 0xC000, 0x7FC1], np.uint16)
    path = write_file({"a": entry("BF16", [3], [0, 6])}, bits.tobytes())
    assert SafetensorsFile(path, use_mmap=use_mmap).tensor("a").array().tolist() == bits.tolist()


@MAPPED
def test_arrays_are_aligned_even_where_the_file_is_not(
    write_file: Callable[..., Path], use_mmap: bool
) -> None:
    header = {"odd": entry("I8", [1], [0, 1]), "a": entry("F32", [2], [1, 9])}
    for padding in range(4):
        text = json.dumps(header).encode() + b" " * padding
        path = write_file(text, b"\0" + np.array([1, -2], np.float32).tobytes())
        array = SafetensorsFile(path, use_mmap=use_mmap).tensor("a").array()
        assert array.flags.aligned
        assert array.tolist() == [1, -2]


@MAPPED
def test_arrays_outlive_their_file(write_file: Callable[..., Path], use_mmap: bool) -> None:
    path = write_file({"a": entry()}, np.array([3, 4], np.float32).tobytes())
    file = SafetensorsFile(path, use_mmap=use_mmap)
    array = file.tensor("a").array()
    file.close()
    file.close()
    assert array.tolist() == [3, 4]


def test_a_tensor_of_an_unsupported_type_is_named(write_file: Callable[..., Path]) -> None:
    path = write_file({"a": entry("F8_E4M3", [8]), "b": entry("Q9", [1], [8, 12])}, bytes(12))
    file = SafetensorsFile(path)
    with pytest.raises(ModelError, match="'a' has type F8_E4M3; supported are F32, F16, BF16"):
        file.tensor("a").array()
    with pytest.raises(ModelError, match="'b' has type Q9"):
        file.tensor("b").array()


def test_without_a_mapping_a_file_truncated_later_is_an_error(
    write_file: Callable[..., Path],
) -> None:
    path = write_file({"a": entry()}, bytes(8))
    file = SafetensorsFile(path, use_mmap=False)
    os.truncate(path, 20)
    with pytest.raises(ModelError, match="truncated"):
        file.tensor("a").array()


NESTED = b'{"a":' + b"[" * 100_000
ATTACKS: dict[str, tuple[Any, bytes, dict[str, Any], str]] = {
    # name: header, data, further arguments of write_file, words of the message
    "header length beyond the file": (
        {},
        b"",
        {"length": 3},
        "claims 3 bytes, but the file has 10",
    ),
    "huge header length": ({}, b"", {"length": 2**64 - 1}, f"the maximum is {MAX_JSON_BYTES}"),
    "header that is no JSON": (b"{nonsense", b"", {}, "damaged JSON"),
    "header that is a list": (b"[]", b"", {}, "does not start with"),
    "empty header": (b"", b"", {}, "does not start with"),
    "header in UTF-16": ('{"a":1}'.encode("utf-16-le"), b"", {}, "damaged JSON"),
    "header with broken UTF-8": (b'{"\xff":1}', b"", {}, "damaged JSON"),
    "nested junk": (NESTED, b"", {}, "damaged JSON"),
    "number of many digits": (b'{"a":' + b"9" * 10_000 + b"}", b"", {}, "damaged JSON"),
    "name twice": (
        b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}',
        bytes(4),
        {},
        "'a' occurs twice",
    ),
    "tensor that is a number": (
        {"a": 1},
        b"",
        {},
        "'a' must have exactly dtype, shape and data_offsets",
    ),
    "field missing": ({"a": {"dtype": "F32"}}, b"", {}, "'a' must have exactly dtype"),
    "field too many": ({"a": entry() | {"x": 1}}, bytes(8), {}, "'a' must have exactly dtype"),
    "type that is a number": ({"a": entry(1)}, bytes(8), {}, "dtype is not a string"),
    "negative size": ({"a": entry("F32", [-2])}, bytes(8), {}, "shape is not a list"),
    "size that is a float": ({"a": entry("F32", [2.0])}, bytes(8), {}, "shape is not a list"),
    "size that is true": ({"a": entry("F32", [True, 2])}, bytes(8), {}, "shape is not a list"),
    "size beyond 63 bits": ({"a": entry("F32", [2**63])}, bytes(8), {}, "shape is not a list"),
    "too many dimensions": ({"a": entry("F32", [1] * 65)}, bytes(8), {}, "shape is not a list"),
    "sizes that overflow": (
        {"a": entry("F32", [2**62, 2**62, 0, 4, 4])},
        bytes(8),
        {},
        "does not fill 8 bytes",
    ),
    "shape too large": ({"a": entry("F32", [3])}, bytes(8), {}, "F32 (3,) does not fill 8 bytes"),
    "shape too small": ({"a": entry("F32", [1])}, bytes(8), {}, "F32 (1,) does not fill 8 bytes"),
    "offsets turned round": ({"a": entry(offsets=[8, 0])}, bytes(8), {}, "not a pair"),
    "three offsets": ({"a": entry(offsets=[0, 4, 8])}, bytes(8), {}, "not a pair"),
    "negative offset": ({"a": entry(offsets=[-8, 0])}, bytes(8), {}, "not a pair"),
    "offset that is a string": ({"a": entry(offsets=["0", 8])}, bytes(8), {}, "not a pair"),
    "offsets beyond the file": (
        {"a": entry("F32", [4], [0, 16])},
        bytes(8),
        {},
        "may be incomplete",
    ),
    "overlap": (
        {"a": entry(), "b": entry("F32", [1], [4, 8])},
        bytes(8),
        {},
        "'b' overlaps the one before it",
    ),
    "gap": (
        {"a": entry(), "b": entry("F32", [1], [12, 16])},
        bytes(16),
        {},
        "'b' follows a gap",
    ),
    "gap at the start": ({"a": entry(offsets=[4, 12])}, bytes(12), {}, "'a' follows a gap"),
    "bytes left over": ({"a": entry()}, bytes(9), {}, "its tensors end at byte"),
}


@pytest.mark.parametrize("attack", ATTACKS)
@MAPPED
def test_a_hostile_file_is_refused_with_its_path_and_the_reason(
    write_file: Callable[..., Path], attack: str, use_mmap: bool
) -> None:
    header, data, arguments, words = ATTACKS[attack]
    path = write_file(header, data, **arguments)
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        SafetensorsFile(path, use_mmap=use_mmap)
    assert str(path) in str(caught.value)


def test_error_messages_are_short_for_any_file(write_file: Callable[..., Path]) -> None:
    path = write_file({"n" * 1_000_000: 1})
    with pytest.raises(ModelError) as caught:
        SafetensorsFile(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("size", range(8))
def test_a_file_shorter_than_its_length_field_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(bytes(size))
    with pytest.raises(ModelError, match=f"{size} bytes are too few"):
        SafetensorsFile(path)


def test_only_regular_files_are_opened_and_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ModelError, match="not a regular file"):
            SafetensorsFile(path)
    with pytest.raises(ModelError, match=r"cannot open .*absent: No such file"):
        SafetensorsFile(tmp_path / "absent")


def test_every_truncated_file_is_refused(tmp_path: Path) -> None:
    whole = safetensors.numpy.save({"a": np.ones(3, np.float32), "b": np.ones(2, np.float32)})
    path = tmp_path / "cut.safetensors"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            SafetensorsFile(path)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
OFFSET = st.integers(-8, 40) | st.integers()
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F4", "I8", "Q9"]) | JUNK,
        "shape": st.lists(st.integers(0, 4) | st.integers(), max_size=3) | JUNK,
        "data_offsets": st.lists(OFFSET, min_size=2, max_size=2) | JUNK,
    }
)
HEADERS = st.dictionaries(st.sampled_from("abc") | st.text(max_size=3), ENTRIES | JUNK, max_size=3)


@st.composite
def almost_sound(draw: st.DrawFn) -> bytes:
    """A file of the reference implementation in which a few bytes were changed."""
    tensors = {"a": np.ones((2, 2), np.float32), "b": np.ones(3, np.float16)}
    content = bytearray(safetensors.numpy.save(tensors))
    for _ in range(draw(st.integers(1, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content)


@st.composite
def with_header(draw: st.DrawFn) -> bytes:
    """A file with a well-formed header and wrong values."""
    text = json.dumps(draw(HEADERS)).encode()
    return struct.pack("<Q", len(text)) + text + draw(st.binary(max_size=40))


@settings(max_examples=400, deadline=None)
@given(content=st.binary(max_size=60) | almost_sound() | with_header())
def test_any_file_is_read_within_its_bounds_or_refused(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            opened = SafetensorsFile(Path(file.name))
        except ModelError:
            return
        for name, info in opened.tensors.items():
            assert 8 <= info.start <= info.end <= len(content)
            if info.dtype in ("F32", "F16", "BF16"):
                assert opened.tensor(name).array().tobytes() == content[info.start : info.end]
        if {info.dtype for info in opened.tensors.values()} <= {"F32", "F16", "BF16"}:
            try:
                expected = {name for name, _ in safetensors.deserialize(content)}
            except SafetensorError as error:  # the reference must accept what talu accepts
                pytest.fail(f"{error}: {content!r}")
            assert set(opened.tensors) == expected
