import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gguf.bytes import array, entry, metadata_of, tensor, text, u32, u64, whole
from tests.remote.llama import gguf as smollm

from talu.exceptions import ModelError
from talu.gguf.encodings import READABLE, TYPES, encoding
from talu.gguf.header import FIRST_READ, MAX_HEADER
from talu.gguf.reader import model_files, open_gguf

MAPPED = pytest.mark.parametrize("use_mmap", [True, False], ids=["mapped", "read"])
Write = Callable[[bytes], Path]
MATRIX = np.random.default_rng(1).standard_normal((6, 64), np.float32)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def save(content: bytes) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return path

    return save


def reference(path: Path, *, split: int = 0) -> Path:
    """A file that the reference implementation writes."""
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=split)
    writer.add_uint8("a.u8", 255)
    writer.add_int8("a.i8", -128)
    writer.add_uint16("a.u16", 65_535)
    writer.add_int16("a.i16", -32_768)
    writer.add_uint32("a.u32", 2**32 - 1)
    writer.add_int32("a.i32", -(2**31))
    writer.add_uint64("a.u64", 2**64 - 1)
    writer.add_int64("a.i64", -(2**63))
    writer.add_float32("a.f32", 0.5)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.text", "grün ▁")
    writer.add_array("a.texts", ["", "b", "▁the"])
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_array("a.decimals", [0.5, -1e30])
    writer.add_array("a.flags", [True, False])
    writer.add_tensor("matrix", MATRIX)
    writer.add_tensor("half", MATRIX.astype(np.float16)[0])
    for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0):
        codes = gguf.quants.quantize(MATRIX, kind)
        writer.add_tensor(kind.name, codes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """A model of the reference implementation in two parts."""
    reference(tmp_path / "model.gguf", split=2)
    return sorted(tmp_path.glob("*.gguf"))


def test_values_of_all_types_are_read_as_the_reference_implementation_wrote_them(
    tmp_path: Path,
) -> None:
    metadata = metadata_of(reference(tmp_path / "model.gguf"))
    bits = (8, 16, 32, 64)
    assert metadata["general.architecture"] == "llama"
    assert [metadata[f"a.u{n}"] for n in bits] == [2**n - 1 for n in bits]
    assert [metadata[f"a.i{n}"] for n in bits] == [-(2 ** (n - 1)) for n in bits]
    assert (metadata["a.f32"], metadata["a.f64"]) == (0.5, 0.1)
    assert metadata["a.bool"] is True
    assert metadata["a.text"] == "grün ▁"
    texts: Any = metadata["a.texts"]
    assert list(texts) == ["", "b", "▁the"]
    assert np.asarray(metadata["a.numbers"]).tolist() == [1, -2, 3]
    assert np.asarray(metadata["a.decimals"]).tolist() == [0.5, float(np.float32(-1e30))]
    assert np.asarray(metadata["a.flags"]).tolist() == [True, False]


@MAPPED
def test_tensors_have_the_bytes_and_the_shape_that_the_reference_implementation_wrote(
    tmp_path: Path, use_mmap: bool
) -> None:
    path = reference(tmp_path / "model.gguf")
    tensors = open_gguf(path, use_mmap=use_mmap).tensors
    expected = {t.name: t for t in gguf.GGUFReader(path).tensors}
    assert tensors.names == sorted(expected)
    assert np.array_equal(tensors["matrix"].array(), MATRIX)
    assert tensors["half"].shape == (64,)
    for name, size in (("Q8_0", 34), ("Q4_0", 18)):
        found = tensors[name]
        assert (found.shape, found.encoding.name, found.encoding.columns) == ((6, 64), name, 32)
        rows = found.parts["blocks"].read(0, 6)
        assert rows.shape == (6, 2 * size)
        assert np.array_equal(rows, expected[name].data)


def test_a_real_model_is_read() -> None:
    model = open_gguf(smollm())
    assert model.metadata["general.architecture"] == "llama"
    assert len(model.metadata["tokenizer.ggml.tokens"]) == 49_152  # type: ignore[arg-type]
    assert len(model.tensors.names) == 272
    assert model.tensors["token_embd.weight"].shape == (49_152, 576)
    assert model.tensors["blk.29.ffn_down.weight"].encoding.name == "Q4_1"
    model.tensors.check_unchanged()


def test_blocks_have_the_sizes_of_the_reference_implementation() -> None:
    for name, found in TYPES.items():
        kind = gguf.GGMLQuantizationType[name]
        assert found.number == kind.value
        assert (found.columns, found.bytes) == gguf.GGML_QUANT_SIZES[kind]


def test_version_2_is_read(write: Write) -> None:
    path = write(whole([entry("a", 4, u32(7))], version=u32(2)))
    assert metadata_of(path) == {"a": 7}


def test_the_alignment_of_the_file_is_followed(write: Write) -> None:
    content = whole(
        [entry("general.alignment", 4, u32(128))],
        [tensor("a"), tensor("b", offset=128)],
        bytes(128) + np.array([3, 4], np.float32).tobytes(),
        alignment=128,
    )
    assert open_gguf(write(content)).tensors["b"].array().tolist() == [3, 4]


def test_a_scalar_has_the_empty_shape(write: Write) -> None:
    path = write(whole(tensors=[tensor("a", ())], data=np.float32(5).tobytes()))
    found = open_gguf(path).tensors["a"].array()
    assert (found.shape, found.item()) == ((), 5)


@MAPPED
def test_arrays_outlive_their_file(write: Write, use_mmap: bool) -> None:
    path = write(whole(tensors=[tensor("a")], data=np.array([3, 4], np.float32).tobytes()))
    tensors = open_gguf(path, use_mmap=use_mmap).tensors
    found = tensors["a"].array()
    tensors.close()
    tensors.close()
    assert found.tolist() == [3, 4]


def test_a_tensor_that_talu_cannot_read_is_named_when_it_is_read(write: Write) -> None:
    path = write(whole(tensors=[tensor("a", (256,), TYPES["IQ1_S"].number)], data=bytes(50)))
    found = open_gguf(path).tensors["a"]
    assert not found.encoding.parts
    with pytest.raises(ModelError, match="'a' has type IQ1_S; supported are F32, F16, BF16"):
        found.array()
    assert all(encoding(name).parts for name in READABLE)


def test_without_a_mapping_a_file_truncated_later_is_an_error(write: Write) -> None:
    path = write(whole(tensors=[tensor("a")], data=bytes(8)))
    found = open_gguf(path, use_mmap=False).tensors["a"]
    os.truncate(path, 20)
    with pytest.raises(ModelError, match="truncated"):
        found.array()


def test_a_change_of_the_file_is_noticed(write: Write) -> None:
    path = write(whole(tensors=[tensor("a")], data=bytes(8)))
    tensors = open_gguf(path).tensors
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="changed"):
        tensors.check_unchanged()


@pytest.mark.parametrize("given", [0, 1])
def test_a_split_model_is_opened_by_any_of_its_parts(parts: list[Path], given: int) -> None:
    model = open_gguf(parts[given])
    assert model_files(parts[given]) == tuple(parts)
    assert model.tensors.names == ["Q4_0", "Q8_0", "half", "matrix"]
    assert np.array_equal(model.tensors["matrix"].array(), MATRIX)
    assert model.metadata["a.text"] == "grün ▁"
    assert metadata_of(parts[given]).keys() == model.metadata.keys()


def test_a_missing_part_is_named(parts: list[Path]) -> None:
    parts[1].unlink()
    with pytest.raises(ModelError, match=r"lacks 1 of 2 parts .* model-00002-of-00002\.gguf"):
        open_gguf(parts[0])


def test_a_part_with_another_name_is_refused(parts: list[Path]) -> None:
    other = parts[0].rename(parts[0].with_name("best.gguf"))
    with pytest.raises(ModelError, match=r"one of 2 parts .* their original names"):
        open_gguf(other)


def test_the_files_of_a_model_in_one_file_are_known_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"damaged")
    assert model_files(path) == (path,)


def test_a_part_in_the_place_of_another_is_refused(parts: list[Path]) -> None:
    parts[1].write_bytes(parts[0].read_bytes())
    with pytest.raises(ModelError, match="says that it is part 1 of 2, expected part 2"):
        open_gguf(parts[0])


def test_parts_of_different_models_are_refused(parts: list[Path]) -> None:
    def part(number: int, names: list[str]) -> bytes:
        values = {"split.no": number, "split.count": 2, "split.tensors.count": 3}
        tensors = [tensor(name, (8,), offset=32 * at) for at, name in enumerate(names)]
        entries = [entry(key, 4, u32(value)) for key, value in values.items()]
        return whole(entries, tensors, bytes(32 * len(names)))

    parts[0].write_bytes(part(0, ["a"]))
    parts[1].write_bytes(part(1, ["b"]))
    with pytest.raises(ModelError, match="a model of 3 tensors, but its parts have 2"):
        open_gguf(parts[0])
    parts[1].write_bytes(part(1, ["a", "b"]))
    with pytest.raises(ModelError, match="'a', which an earlier part has too"):
        open_gguf(parts[0])


def test_a_number_of_parts_beyond_the_limit_is_refused(write: Write) -> None:
    path = write(whole([entry("split.count", 2, b"\xff\xff")]))
    with pytest.raises(ModelError, match="split into 65535 parts; the maximum is 1000"):
        open_gguf(path)


ATTACKS: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "ends inside its first bytes: 4 bytes at 0 are needed, but it has 0"),
    "other format": (b"PK\3\4" + bytes(40), r"begins with b'PK\\x03\\x04' instead of b'GGUF'"),
    "version 1": (whole(version=u32(1)), "version 1, which is not supported; download a newer"),
    "version 4": (whole(version=u32(4)), "version 4; supported are versions 2 and 3"),
    "big-endian": (whole(version=b"\0\0\0\3"), "big-endian, which is not supported"),
    "end inside the counts": (whole()[:14], "ends inside its header"),
    "huge number of tensors": (whole(counts=(2**63, 0)), r"claims \d+ tensors, but has only 32"),
    "huge number of values": (whole(counts=(0, 2**64 - 1)), r"claims \d+ values, but has only 32"),
    "huge key": (
        whole([text("", 2**64 - 1) + bytes(16)]),
        "a key claims 18446744073709551615 bytes; the maximum is 65535",
    ),
    "key that is not UTF-8": (whole([entry(b"\xff", 4, u32(0))]), "a key is not valid UTF-8"),
    "empty key": (whole([entry("", 4, u32(0))]), "the key '' is empty"),
    "key twice": (whole([entry("a", 4, u32(0))] * 2), "the key 'a' occurs twice"),
    "unknown type of value": (whole([entry("a", 13, u32(0))]), "'a' has type 13, which does not"),
    "boolean that is a number": (whole([entry("a", 7, b"\2")]), "neither true nor false"),
    "huge text": (
        whole([entry("a", 8, u64(2**63))]),
        "'a' claims 9223372036854775808 bytes; the maximum is",
    ),
    "text beyond the file": (
        whole([entry("a", 8, text("b", 999))]),
        "ends inside the value of 'a': 999 bytes",
    ),
    "text that is not UTF-8": (whole([entry("a", 8, text(b"\xff"))]), "'a' is not valid UTF-8"),
    "nested arrays": (
        whole([array("a", 9, 2**40, b"\x09\0\0\0" * 50)]),
        "'a' is an array of arrays, which is not supported",
    ),
    "array of an unknown type": (whole([array("a", 77, 1, u32(0))]), "an array of type 77"),
    "huge array": (whole([array("a", 12, 2**61, b"")]), "ends inside the value of 'a'"),
    "huge array of texts": (whole([array("a", 8, 2**61, b"")]), r"claims \d+ texts, but"),
    "huge text in an array": (
        whole([array("a", 8, 2, text("b") + text("c", 2**64 - 1))]),
        "ends inside the value of 'a'",
    ),
    "text in an array that is not UTF-8": (
        whole([array("a", 8, 2, text("b") + text(b"\xe2\x96"))]),
        "text 1 of the value of 'a' is not valid UTF-8",
    ),
    "alignment that is no power of two": (
        whole([entry("general.alignment", 4, u32(48))]),
        "general.alignment is 48, expected a power of two",
    ),
    "alignment 0": (whole([entry("general.alignment", 4, u32(0))]), "general.alignment is 0"),
    "huge alignment": (whole([entry("general.alignment", 4, u32(2**31))]), "expected a power"),
    "alignment that is a text": (
        whole([entry("general.alignment", 8, text("32"))]),
        "general.alignment is '32'",
    ),
    "tensor twice": (
        whole(tensors=[tensor("a"), tensor("a", offset=32)], data=bytes(64)),
        "'a' occurs twice",
    ),
    "five dimensions": (whole(tensors=[tensor("a", [1] * 5)]), "has 5 dimensions; at most 4"),
    "four billion dimensions": (
        whole(tensors=[tensor("a", dimensions=2**32 - 1)]),
        "has 4294967295 dimensions; at most 4",
    ),
    "dimension 0": (whole(tensors=[tensor("a", (0,))]), r"shape \(0,\), which is empty"),
    "product beyond 64 bits": (
        whole(tensors=[tensor("a", (2**32, 2**32, 2**32, 4))]),
        "which is empty or too large",
    ),
    "product of 2**64 + 2": (
        whole(tensors=[tensor("a", (2**63 + 1, 2))], data=bytes(8)),
        "which is empty or too large",
    ),
    "unknown type of tensor": (
        whole(tensors=[tensor("a", kind=99)], data=bytes(8)),
        "type 99, which is unknown; known are F32, F16, Q4_0",
    ),
    "type that was removed": (whole(tensors=[tensor("a", kind=4)]), "type 4, which is unknown"),
    "rows that are no whole blocks": (
        whole(tensors=[tensor("a", (33, 2), TYPES["Q4_0"].number)], data=bytes(99)),
        "rows of 33 numbers, but Q4_0 stores blocks of 32",
    ),
    "offset between alignments": (
        whole(tensors=[tensor("a", offset=8)], data=bytes(64)),
        "offset 8, not a multiple of 32",
    ),
    "offset beyond 64 bits": (
        whole(tensors=[tensor("a", offset=2**64 - 32)], data=bytes(64)),
        r"ends at byte \d{20}, the file at \d+; the download",
    ),
    "tensor beyond the file": (
        whole(tensors=[tensor("a")], data=bytes(7)),
        r"ends at byte \d+, the file at \d+; the download or copy may be incomplete",
    ),
    "overlapping tensors": (
        whole(tensors=[tensor("a", (16,)), tensor("b", offset=32)], data=bytes(64)),
        "'b' overlaps",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_damaged_file_is_refused_with_the_reason(write: Write, name: str) -> None:
    content, words = ATTACKS[name]
    path = write(content)
    with pytest.raises(ModelError, match=words) as caught:
        open_gguf(path)
    assert len(str(caught.value)) < 600


def test_a_header_beyond_the_limit_is_refused_without_reading_it(write: Write) -> None:
    path = write(whole([array("a", 0, MAX_HEADER, b"")]))
    os.truncate(path, 2 * MAX_HEADER)  # a hole
    tracemalloc.start()
    with pytest.raises(ModelError, match=f"its header has more than {MAX_HEADER} bytes"):
        open_gguf(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("before", range(FIRST_READ - 90, FIRST_READ - 20))
def test_a_header_is_read_further_at_any_of_its_bytes(write: Write, before: int) -> None:
    path = write(whole([entry("a", 8, text("x" * before)), entry("b", 4, u32(7))], [tensor("c")]))
    os.truncate(path, path.stat().st_size + 8)
    assert metadata_of(path)["b"] == 7


def test_a_vocabulary_of_a_million_texts_is_read_quickly(write: Write) -> None:
    texts = b"".join(text(f"token{number}") for number in range(1_000_000))
    path = write(whole([array("tokens", 8, 1_000_000, texts)]))
    start = time.process_time()
    tokens: Any = metadata_of(path)["tokens"]
    assert time.process_time() - start < 2  # 0.1 s on a quiet machine
    assert tokens[999_999] == "token999999"


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return reference(tmp_path_factory.mktemp("gguf") / "model.gguf").read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated") / "model.gguf"


NUMBERS = st.sampled_from([0, 1, 3, 9, 255, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1])
CHANGES = st.lists(
    st.tuples(st.integers(0, 1300), NUMBERS, st.sampled_from([1, 4, 8])), min_size=1, max_size=4
)


@settings(deadline=2000, max_examples=400)
@given(changes=CHANGES, kept=st.none() | st.integers(0, 5000))
def test_a_mutated_file_is_read_or_refused_within_bounds(
    valid: bytes, place: Path, changes: list[tuple[int, int, int]], kept: int | None
) -> None:
    data = bytearray(valid[:kept])
    for at, number, size in changes:
        data[at : at + size] = (number % 256**size).to_bytes(size, "little")
    place.write_bytes(data)
    tracemalloc.start()
    try:
        tensors = open_gguf(place).tensors
    except ModelError:
        pass
    else:
        for name in tensors.names:
            for part in tensors[name].parts.values():
                read: Any = part.read(0, part.count)
                assert read.nbytes <= len(data)
        tensors.close()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20
